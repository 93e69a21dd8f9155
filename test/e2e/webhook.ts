import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { text } from 'node:stream/consumers'
import type { V1MutatingWebhookConfiguration, V1Secret } from '@kubernetes/client-node'
import { Agent, fetch } from 'undici'
import type { Cluster } from './cluster.ts'

/** The answer of the webhook port to a request that does not come from the API server. */
export interface Reply {
  status: number
  headers: Record<string, string>
  text: string
  /** The response of an AdmissionReview, with its patch decoded. */
  response?: { uid: string; allowed: boolean; warnings?: string[]; patch?: unknown[] }
}

export interface Webhook {
  /** A string is sent as it is, anything else as JSON. */
  post(body: unknown, timeout?: string): Promise<Reply>
  /** Announces a body of this size; resolves with the answer before its first byte is sent. */
  announce(bytes: number): Promise<Pick<Reply, 'status' | 'text'>>
  /** Closes the connections that are kept alive. */
  close(): Promise<void>
}

/**
 * Reaches the port at which the configuration sends pods, with the CA in its Secret. Needs
 * the API server only now; connections are kept alive as the API server does it.
 */
export async function reachWebhook(
  cluster: Cluster,
  hear: (text: string) => void,
): Promise<Webhook> {
  const configurations = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  const { body } = await cluster.ask<V1MutatingWebhookConfiguration>(
    'GET',
    `${configurations}/pullpass`,
  )
  const url = body.webhooks?.[0]?.clientConfig.url ?? ''
  const authority = '/api/v1/namespaces/pullpass/secrets/pullpass-ca'
  const { body: secret } = await cluster.ask<V1Secret>('GET', authority)
  const ca = Buffer.from(secret.data?.['ca.crt'] ?? '', 'base64').toString()
  const dispatcher = new Agent({ connect: { ca } })
  return {
    close: () => dispatcher.close(),
    announce: async bytes => {
      const headers = { 'content-type': 'application/json', 'content-length': bytes }
      const asked = request(url, { method: 'POST', ca, headers, agent: false })
      asked.flushHeaders()
      const [response] = (await once(asked, 'response')) as [IncomingMessage]
      const said = { status: response.statusCode ?? 0, text: await text(response) }
      asked.destroy()
      return said
    },
    post: async (sent, timeout = '5s') => {
      const response = await fetch(`${url}?timeout=${timeout}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: typeof sent === 'string' ? sent : JSON.stringify(sent),
        dispatcher,
      })
      const said = await response.text()
      hear(said)
      const { status, headers } = response
      return {
        status,
        headers: Object.fromEntries(headers),
        text: said,
        ...readResponse(status, said),
      }
    },
  }
}

function readResponse(status: number, text: string): Pick<Reply, 'response'> {
  if (status !== 200) return {}
  const { response } = JSON.parse(text)
  const { patch } = response
  if (patch === undefined) return { response }
  return { response: { ...response, patch: JSON.parse(Buffer.from(patch, 'base64').toString()) } }
}
