import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { nodeFlags } from '../scripts/bundle.ts'
import type { BluemixEnvironment } from './bluemix/environment.ts'
import type { ControlPlane } from './control-plane.ts'
import type { FaultProxy } from './fault-proxy.ts'
import { releaseNamespace } from './install.ts'
import {
  type Folder,
  makeFolder,
  type Program,
  type RunningProcess,
  startProcess,
  waitFor,
} from './processes.ts'
import type { ProcessClock } from './replicas/clock.ts'

/** pullpass as a process beside the cluster. */
export interface Pullpass {
  /** Its current process; a different one after `restart`. */
  process(): RunningProcess
  /** The output of all its processes. */
  output(): string
  /** Its log lines with this message, parsed. */
  lines(message: string): Record<string, unknown>[]
  /** The text of /metrics, or the value of one series, named as Prometheus writes it. */
  metrics(): Promise<string>
  metric(series: string): Promise<number>
  readyz(): Promise<{ status: number; ready: boolean; problems: string[]; warnings: string[] }>
  whenReady(): Promise<void>
  /** Replaces the API key by renaming a new file, as the kubelet does. */
  writeApiKey(key: string): Promise<void>
  /** Starts it again after it has ended; resolves when it is ready. */
  restart(): Promise<void>
  stop(): Promise<void>
}

export interface PullpassOptions {
  controlPlane: Pick<ControlPlane, 'kubeconfigFor'>
  environment: BluemixEnvironment
  /** Ports on 127.0.0.1 for the webhook, and for probes and metrics. */
  ports: { webhook: number; operations: number }
  /** Proxy to the API server; absent: none. */
  proxy?: Pick<FaultProxy, 'kubeconfig'> | undefined
  apiKey?: string | undefined
  /** Path of the bundle; absent: the source is run. */
  program?: string | undefined
  /** Its wall clock; absent: that of the machine. */
  clock?: Pick<ProcessClock, 'nodeArguments' | 'env'> | undefined
  /** Changes how the process is started: more environment, a memory limit. */
  launch?: ((program: Program) => Program) | undefined
  /** Settings that override those of the sandbox, section by section. */
  settings?: Record<string, Record<string, unknown>> | undefined
}

const main = join(import.meta.dirname, '..', 'src', 'main.ts')

/**
 * Starts it with the rights of its ServiceAccount. Resolves when the process runs; if it cannot be
 * started, its files are removed.
 */
export async function startPullpass(options: PullpassOptions): Promise<Pullpass> {
  const folder = await makeFolder('pullpass')
  try {
    return await startIn(folder, options)
  } catch (error) {
    await folder.remove()
    throw error
  }
}

async function startIn(folder: Folder, options: PullpassOptions): Promise<Pullpass> {
  const { environment, ports, clock, program = main, launch = same => same } = options
  const files = await writeFiles(folder.path, options)
  const outputs: RunningProcess[] = []
  const start = async () => {
    outputs.push(
      await startProcess(
        launch({
          name: 'pullpass',
          command: process.execPath,
          args: [
            ...nodeFlags,
            ...(clock?.nodeArguments ?? []),
            ...[program, 'serve', '--config', files.config],
          ],
          env: { PATH: process.env.PATH, HTTPS_PROXY: environment.gateway, ...clock?.env },
        }),
      ),
    )
  }
  const current = () => outputs.at(-1) as RunningProcess
  const operations = `http://127.0.0.1:${ports.operations}`
  const pullpass: Pullpass = {
    process: current,
    output: () => outputs.map(each => each.output()).join(''),
    lines: message => linesOf(pullpass.output()).filter(line => line.msg === message),
    metrics: async () => (await fetch(`${operations}/metrics`)).text(),
    metric: async series => metricOf(await pullpass.metrics(), series),
    readyz: () => readyz(operations),
    whenReady: () => whenReady(pullpass),
    writeApiKey: key => writeSwapped(files.apiKey, key),
    restart: async () => {
      await start()
      await pullpass.whenReady()
    },
    stop: async () => {
      await current().stop(20_000)
      await folder.remove()
    },
  }
  await start()
  return pullpass
}

async function writeFiles(folder: string, options: PullpassOptions) {
  const { environment, ports, settings = {} } = options
  const credentialsDirectory = join(folder, 'credentials')
  const apiKey = join(credentialsDirectory, 'api-key')
  await mkdir(credentialsDirectory)
  await writeFile(apiKey, options.apiKey ?? environment.apiKey)
  const own: Record<string, Record<string, unknown>> = {
    bluemix: { credentialsDirectory, caFile: environment.caFile, organization: 'acme' },
    admission: { address: '127.0.0.1', port: ports.webhook },
    operations: { address: '127.0.0.1', port: ports.operations },
    certificate: { names: ['127.0.0.1'] },
    kubernetes: { kubeconfig: await writeKubeconfig(folder, options) },
    controller: { listEverySeconds: 5 },
    shutdown: { drainMs: 500 },
  }
  for (const [section, values] of Object.entries(settings)) {
    own[section] = { ...own[section], ...values }
  }
  const config = join(folder, 'config.yaml')
  await writeFile(config, JSON.stringify({ domain: environment.domain, ...own }))
  return { config, apiKey }
}

/** The path of the kubeconfig of its ServiceAccount, through the proxy if there is one. */
async function writeKubeconfig(
  folder: string,
  { controlPlane, proxy }: PullpassOptions,
): Promise<string> {
  const direct = await controlPlane.kubeconfigFor(releaseNamespace, 'pullpass')
  if (proxy === undefined) return direct
  const config = new KubeConfig()
  config.loadFromFile(direct)
  const file = join(folder, 'kubeconfig')
  await writeFile(file, proxy.kubeconfig(config))
  return file
}

async function writeSwapped(file: string, text: string): Promise<void> {
  await writeFile(`${file}.new`, text)
  await rename(`${file}.new`, file)
}

async function readyz(operations: string): ReturnType<Pullpass['readyz']> {
  const response = await fetch(`${operations}/readyz`)
  const body = (await response.json()) as Omit<Awaited<ReturnType<Pullpass['readyz']>>, 'status'>
  return { status: response.status, ...body }
}

async function whenReady(pullpass: Pullpass): Promise<void> {
  const isReady = async () => {
    if (!pullpass.process().running()) throw new Error(`pullpass ended:\n${pullpass.output()}`)
    return (await pullpass.readyz().catch(() => undefined))?.ready === true
  }
  await waitFor(isReady, { withinMs: 120_000, what: 'pullpass to be ready' })
}

function linesOf(output: string): Record<string, unknown>[] {
  return output
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line) as Record<string, unknown>)
}

/** The value of a series, e.g. `pullpass_leader` or `x_total{outcome="injected"}`; 0 where absent. */
function metricOf(text: string, series: string): number {
  const line = text.split('\n').find(each => each.startsWith(`${series} `))
  return Number(line?.slice(series.length + 1) ?? 0)
}
