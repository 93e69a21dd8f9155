import type { V1Endpoint, V1EndpointSlice, V1Service } from '@kubernetes/client-node'

/**
 * The pods behind one port of a Service, as the API server has them: those that are ready; where
 * none is, those that end but still serve (kubernetes/enhancements KEP-1669,
 * ProxyTerminatingEndpoints).
 */
export function backendsOf(
  service: V1Service,
  port: number,
  slices: readonly V1EndpointSlice[],
): { address: string; port: number }[] {
  const ofService = slices.filter(
    ({ metadata }) =>
      metadata?.namespace === service.metadata?.namespace &&
      metadata?.labels?.['kubernetes.io/service-name'] === service.metadata?.name,
  )
  const servicePort = service.spec?.ports?.find(known => known.port === port)
  if (!servicePort) return []
  const all = ofService.flatMap(slice => {
    const target = slice.ports?.find(({ name }) => (name ?? '') === (servicePort.name ?? ''))?.port
    return target === undefined
      ? []
      : (slice.endpoints ?? []).map(endpoint => ({ endpoint, target }))
  })
  const ready = all.filter(({ endpoint }) => endpoint.conditions?.ready !== false)
  const used = ready.length > 0 ? ready : all.filter(({ endpoint }) => servesWhileEnding(endpoint))
  return used
    .map(({ endpoint, target }) => ({ address: endpoint.addresses[0] ?? '', port: target }))
    .sort((a, b) => a.address.localeCompare(b.address))
}

function servesWhileEnding({ conditions }: V1Endpoint): boolean {
  return conditions?.terminating === true && conditions.serving === true
}
