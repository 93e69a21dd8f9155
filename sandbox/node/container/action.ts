import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type {
  V1Container,
  V1HTTPGetAction,
  V1LifecycleHandler,
  V1Probe,
} from '@kubernetes/client-node'

/** What probes and hooks act on. */
export interface Surroundings {
  container: V1Container
  /** Where the pod is really reached. */
  address: string
  /** Runs a command as the container would; rejects where the time is over, then it is killed. */
  exec(command: string[], timeoutMs: number): Promise<{ code: number | null; output: string }>
}

/**
 * Carries out what a probe or a hook says. Resolves when it went well, rejects with the kubelet's
 * words when not.
 */
export async function act(
  action: V1Probe & V1LifecycleHandler,
  surroundings: Surroundings,
  timeoutMs: number,
): Promise<void> {
  const { exec, httpGet, tcpSocket } = action
  const { address, container } = surroundings
  if (exec) return runCommand(exec.command ?? [], surroundings, timeoutMs)
  if (httpGet) return get(httpGet, surroundings, timeoutMs)
  if (tcpSocket) {
    const port = portOf(tcpSocket.port, container)
    return canConnect(port, tcpSocket.host ?? address, timeoutMs)
  }
  if (action.sleep) await sleep(action.sleep.seconds * 1000)
}

async function runCommand(command: string[], { exec }: Surroundings, timeoutMs: number) {
  const { code, output } = await exec(command, timeoutMs)
  if (code !== 0) throw new Error(`command ended with ${code}: ${output.trim().slice(-500)}`)
}

async function get(
  { scheme, port, path = '/', host, httpHeaders = [] }: V1HTTPGetAction,
  { address, container }: Surroundings,
  timeoutMs: number,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const headers = Object.fromEntries(httpHeaders.map(({ name, value }) => [name, value]))
  const signal = AbortSignal.timeout(timeoutMs)
  const options = {
    host: host ?? address,
    port: portOf(port, container),
    path,
    headers: { 'User-Agent': 'kube-probe/sandbox', ...headers },
    signal,
    agent: false as const,
    // The kubelet does not look at the certificate either.
    rejectUnauthorized: false,
  }
  const ask = scheme === 'HTTPS' ? httpsRequest : httpRequest
  ask(options, response => {
    response.resume()
    resolve(response.statusCode ?? 0)
  })
    .on('error', error => reject(signal.aborted ? new Error('no answer in time') : error))
    .end()
  const status = await promise
  if (status < 200 || status >= 400) {
    throw new Error(`HTTP probe failed with statuscode: ${status}`)
  }
}

async function canConnect(port: number, host: string, timeoutMs: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = connect({ port, host, timeout: timeoutMs }, resolve)
  socket.on('error', reject)
  socket.on('timeout', () => reject(new Error('no connection in time')))
  await promise.finally(() => socket.destroy())
}

function portOf(port: number | string, container: V1Container): number {
  const named = container.ports?.find(({ name }) => name === port)?.containerPort
  const number = named ?? Number(port)
  if (!Number.isInteger(number)) throw new Error(`the container has no port named ${port}`)
  return number
}
