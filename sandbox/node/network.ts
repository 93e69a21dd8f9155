import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer as createHttpServer, type IncomingMessage } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { CoreV1Api, DiscoveryV1Api, type V1Endpoint } from '@kubernetes/client-node'
import type { Component } from '../components.ts'
import type { ControlPlane } from '../control-plane.ts'
import { joinSockets } from '../join-sockets.ts'
import { run } from '../processes.ts'

interface Target {
  host: string
  port: number
}

/**
 * Pods cannot reach 127.0.0.1 of the node, and the cluster has no kube-proxy: the node gets this
 * address, and connections to it go on to a port of 127.0.0.1.
 */
export async function startRelay(
  { address, port }: { address: string; port: number },
  target: number,
): Promise<Component> {
  await run({ command: 'ip', args: ['address', 'replace', `${address}/32`, 'dev', 'lo'] })
  const open = new Set<Socket>()
  const server = createServer(client => {
    open.add(client)
    client.once('close', () => open.delete(client))
    joinSockets(client, connect(target, '127.0.0.1'))
  })
  server.listen(port, address)
  await once(server, 'listening')
  return {
    stop: async () => {
      server.close()
      for (const client of open) client.destroy()
    },
  }
}

/**
 * The way of the API server to Services: without kube-proxy, nothing leads to a ClusterIP. It asks at
 * its egress socket: CONNECT clusterIP:port. Other addresses are those of nodes.
 */
export async function startEgress(controlPlane: ControlPlane): Promise<Component> {
  const kubeConfig = controlPlane.kubeConfig()
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const discovery = kubeConfig.makeApiClient(DiscoveryV1Api)
  const open = new Set<Socket>()
  let turn = 0

  async function targetOf({ host, port }: Target): Promise<Target | undefined> {
    const { items: services } = await core.listServiceForAllNamespaces()
    const service = services.find(({ spec }) => spec?.clusterIP === host)
    if (service === undefined) return { host, port }
    const { name = '', namespace = '' } = service.metadata ?? {}
    const labelSelector = `kubernetes.io/service-name=${name}`
    const { items } = await discovery.listNamespacedEndpointSlice({ namespace, labelSelector })
    const portName = service.spec?.ports?.find(known => known.port === port)?.name ?? ''
    const targets = items.flatMap(({ endpoints = [], ports = [] }) => {
      const target = ports.find(known => (known.name ?? '') === portName)?.port
      return target === undefined ? [] : endpoints.map(each => ({ ...each, target }))
    })
    const ready = targets.filter(({ conditions }) => conditions?.ready !== false)
    const usable = ready.length > 0 ? ready : targets.filter(servesWhileEnding)
    const next = usable[turn++ % usable.length]
    return next && { host: next.addresses[0] ?? '', port: next.target }
  }

  async function join(client: Socket, asked: Target): Promise<void> {
    const refuse = () => void client.end('HTTP/1.1 502 refused\r\n\r\n')
    const target = await targetOf(asked).catch(() => undefined)
    if (target === undefined) return refuse()
    const joined = connect(target)
    joined.once('error', refuse)
    joined.once('connect', () => {
      joined.off('error', refuse)
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      joinSockets(client, joined)
    })
  }

  const server = createHttpServer()
  server.on('connect', (request: IncomingMessage, client: Socket) => {
    open.add(client)
    client.once('close', () => open.delete(client)).on('error', () => client.destroy())
    const { hostname, port } = new URL(`tcp://${request.url}`)
    void join(client, { host: hostname, port: Number(port) })
  })
  await rm(controlPlane.egressSocket, { force: true })
  server.listen(controlPlane.egressSocket)
  await once(server, 'listening')
  return {
    stop: async () => {
      server.close()
      for (const client of open) client.destroy()
    },
  }
}

/** As kube-proxy: pods that end still get connections if no other pod is ready (KEP-1669). */
function servesWhileEnding({ conditions }: V1Endpoint): boolean {
  return conditions?.terminating === true && conditions.serving === true
}
