import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { askedVersion } from '../tools.ts'

/** Runs a command in a container; undefined where there is no such container. */
export type Exec = (pod: string, container: string, command: string[]) => Promise<Ran> | undefined

export interface Ran {
  code: number | null
  stdout: string
  stderr: string
}

/**
 * Each message begins with the number of its stream (kubernetes/kubernetes
 * k8s.io/streaming/pkg/httpstream/wsstream). An API server of Kubernetes 1.36 or newer speaks it with a
 * node that declares ExtendWebSocketsToKubelet; older ones speak SPDY.
 */
const PROTOCOL = 'v5.channel.k8s.io'
const STREAM = { stdout: 1, stderr: 2, status: 3 }

/** Why kubectl exec does not reach the pods of a node here; undefined: it does. */
export function obstacleToExec(env = process.env): string | undefined {
  if (askedVersion(env) !== '1.34') return undefined
  return 'an API server of Kubernetes 1.34 speaks SPDY with nodes, and this node does not'
}

/** What an API server asks of a node: `/<what>/<namespace>/<pod>/<container>?<query>`. */
export function readAsk({ url = '/' }: IncomingMessage) {
  const { pathname, searchParams: query } = new URL(url, 'https://node')
  const [, what = '', namespace = '', pod = '', container = ''] = pathname.split('/')
  return { what, namespace, pod, container, query }
}

/** Listener of `upgrade` that runs what `kubectl exec` asks for, without a terminal and an input. */
export function acceptExec(options: { namespace: string; exec: Exec }) {
  const webSockets = new WebSocketServer({ noServer: true, handleProtocols: () => PROTOCOL })
  return (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const { what, namespace, pod, container, query } = readAsk(request)
    const here = what === 'exec' && namespace === options.namespace
    const obstacle = whyNot(here, request, query)
    if (obstacle !== undefined) {
      refuse(socket, 501, obstacle)
      return
    }
    const running = options.exec(pod, container, query.getAll('command'))
    if (!running) {
      refuse(socket, 404, `container ${container} of pod ${pod} does not run`)
      return
    }
    webSockets.handleUpgrade(
      request,
      socket,
      head,
      webSocket => void sendOutcome(webSocket, running),
    )
  }
}

function whyNot(here: boolean, { headers }: IncomingMessage, query: URLSearchParams) {
  if (!here) return 'this node opens streams for exec in its pods, and for nothing else'
  const asked = ['input', 'tty'].find(name => query.has(name))
  if (asked) return `this node cannot run a command with ${asked}`
  const speaks = headers['sec-websocket-protocol']?.includes(PROTOCOL)
  return speaks ? undefined : `this node speaks ${PROTOCOL}, as Kubernetes 1.36 does`
}

function refuse(socket: Duplex, status: 404 | 501, words: string): void {
  const reason = { 404: 'Not Found', 501: 'Not Implemented' }[status]
  const headers = `content-type: text/plain\r\ncontent-length: ${Buffer.byteLength(words)}`
  socket.end(`HTTP/1.1 ${status} ${reason}\r\n${headers}\r\nconnection: close\r\n\r\n${words}`)
}

async function sendOutcome(webSocket: WebSocket, running: Promise<Ran>): Promise<void> {
  const send = (stream: number, text: string) =>
    webSocket.send(Buffer.concat([Buffer.of(stream), Buffer.from(text)]))
  // Whoever asked may have gone: nobody is left to be told then.
  webSocket.on('error', () => {})
  const status = await running.then(
    ({ code, stdout, stderr }) => {
      if (stdout) send(STREAM.stdout, stdout)
      if (stderr) send(STREAM.stderr, stderr)
      return statusOf(code)
    },
    ({ message }: Error) => ({ status: 'Failure', reason: 'InternalError', message }),
  )
  send(STREAM.status, JSON.stringify({ metadata: {}, ...status }))
  webSocket.close(1000)
}

/** In the kubelet's words. */
function statusOf(code: number | null) {
  if (code === 0) return { status: 'Success' }
  const message = `command terminated with exit code ${code ?? 137}`
  const causes = [{ reason: 'ExitCode', message: String(code ?? 137) }]
  return { status: 'Failure', reason: 'NonZeroExitCode', message, details: { causes } }
}
