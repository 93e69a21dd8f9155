import type { CoreV1Api, V1Pod, V1ServiceAccountTokenProjection } from '@kubernetes/client-node'

/** The tokens a pod has asked for, each asked anew in time. */
export interface Tokens {
  /**
   * Asks for those that are missing, or past `renewAt` of their life. Rejects where one is missing
   * still.
   */
  renew(wanted: V1ServiceAccountTokenProjection[]): Promise<void>
  text(projection: V1ServiceAccountTokenProjection): string
}

/**
 * Tokens of the pod's own ServiceAccount by TokenRequest, bound to the pod, as the kubelet asks
 * for them (kubernetes/kubernetes pkg/kubelet/token: renewed at 80 % of their life, the old one
 * kept while that fails).
 */
export function createTokens(options: {
  core: CoreV1Api
  pod: V1Pod
  renewAt: number
  now: () => number
}): Tokens {
  const { core, pod, renewAt, now } = options
  const { name = '', namespace = '', uid = '' } = pod.metadata ?? {}
  const kept = new Map<string, { text: string; renewMs: number }>()

  async function request(projection: V1ServiceAccountTokenProjection): Promise<void> {
    const { status } = await core.createNamespacedServiceAccountToken({
      name: pod.spec?.serviceAccountName ?? 'default',
      namespace,
      body: {
        spec: {
          audiences: projection.audience ? [projection.audience] : [],
          expirationSeconds: projection.expirationSeconds ?? 3600,
          boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
        },
      },
    })
    const ends = new Date(status?.expirationTimestamp ?? 0).getTime()
    const renewMs = now() + (ends - now()) * renewAt
    kept.set(keyOf(projection), { text: status?.token ?? '', renewMs })
  }

  return {
    async renew(wanted) {
      for (const projection of wanted) {
        const token = kept.get(keyOf(projection))
        if (token && token.renewMs > now()) continue
        await request(projection).catch(error => {
          if (!token) throw error
        })
      }
    },
    text: projection => kept.get(keyOf(projection))?.text ?? '',
  }
}

function keyOf({ audience = '', expirationSeconds = 3600 }: V1ServiceAccountTokenProjection) {
  return `${audience} ${expirationSeconds}`
}
