import { delimiter, dirname, join } from 'node:path'
import { CoreV1Api } from '@kubernetes/client-node'
import type { BluemixEnvironment } from '../bluemix/environment.ts'
import { type Component, startComponents } from '../components.ts'
import { nodeName } from '../control-plane/programs.ts'
import type { ControlPlane } from '../control-plane.ts'
import { startProcess } from '../processes.ts'
import { type ToolName, tool } from '../tools.ts'
import { makeCgroups } from './cgroups.ts'
import { startEgress, startRelay } from './network.ts'
import { hasOwnNetwork } from './own-network.ts'
import { type ImageContent, packImage } from './pack-image.ts'
import { pauseImage, type Site, writeSettings } from './settings.ts'

/** The address of the node. Pods also find the gateway of the environment there. */
const ADDRESS = '10.244.255.1'
/** The address of the Service `kubernetes`. */
const API_SERVER = '10.0.0.1'

export interface SandboxNode extends Component {
  /** The log of its kubelet and of containerd. */
  output(): string
  /** The gateway of the environment, as pods reach it. */
  readonly gateway: string
}

interface Cluster {
  controlPlane: ControlPlane
  environment: BluemixEnvironment
}

/**
 * Starts a scheduler and a node: kubelet, containerd and runc, with a network of its own. Resolves
 * when the node is ready for pods. It has these images, and pulls from the registry of the environment. Nothing of it is
 * left after `stop`, or after the end of this process, whatever ends it. Needs root on Linux and a
 * network namespace of its own; see own-network.ts.
 */
export async function startNode(cluster: Cluster, images: ImageContent[]): Promise<SandboxNode> {
  if (!hasOwnNetwork()) throw new Error('a real node needs a network namespace of its own')
  return startComponents(async components => {
    const { controlPlane } = cluster
    const folder = await components.folder('node')
    const cgroup = `pullpass-node-${process.pid}-${Date.now()}`
    await components.begun(makeCgroups(cgroup))
    const site = await siteIn(folder, cgroup, cluster)
    await writeSettings(site)
    for (const [index, image] of [await pause(), ...images].entries()) {
      await packImage(image, site.file(`images/${index}.tar`))
    }
    await components.begun(startEgress(controlPlane))
    const gateway = new URL(cluster.environment.gateway)
    for (const [address, port, target] of [
      [ADDRESS, Number(gateway.port), Number(gateway.port)],
      [API_SERVER, 443, controlPlane.apiserverPort],
    ] as const) {
      await components.begun(startRelay({ address, port }, target))
    }
    await components.begun(startScheduler(controlPlane, site))
    const node = await components.begun(startPrograms(cluster, site))
    gateway.hostname = ADDRESS
    return { output: node.output, gateway: gateway.origin, stop: components.stop }
  })
}

/** What containerd runs in each pod to hold its namespaces. */
async function pause(): Promise<ImageContent> {
  return {
    reference: pauseImage,
    files: { '/bin/sleep': await tool('sleep') },
    entrypoint: ['/bin/sleep', '100000h'],
    env: {},
    user: '65535',
  }
}

async function siteIn(folder: string, cgroup: string, { environment }: Cluster): Promise<Site> {
  const networkPlugins: ToolName[] = ['ptp', 'host-local', 'loopback']
  return {
    file: name => join(folder, name),
    cgroup,
    programs: {
      runc: await tool('runc'),
      networkPlugins: (await built(networkPlugins)).map(dirname),
    },
    registry: { host: environment.hosts.registry, caFile: environment.caFile },
  }
}

async function startScheduler(controlPlane: ControlPlane, { file }: Site): Promise<Component> {
  const kubeconfig = await controlPlane.kubeconfigOf('scheduler')
  return startProcess({
    name: 'kube-scheduler',
    command: await tool('kube-scheduler'),
    args: [`--kubeconfig=${kubeconfig}`, '--leader-elect=false', '--secure-port=0'],
    outputFile: file('kube-scheduler.log'),
  })
}

/** All programs of the node, as one process group in mount and PID namespaces of its own. */
async function startPrograms({ controlPlane, environment }: Cluster, { file }: Site) {
  const [kubelet = '', ...others] = await built([
    ...(['kubelet', 'containerd', 'containerd-shim-runc-v2', 'ctr'] as const),
  ])
  const script = join(import.meta.dirname, 'node.sh')
  const started = await startProcess({
    name: 'the node',
    command: 'unshare',
    args: [
      ...['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'],
      ...['sh', script, file('')],
      kubelet,
      `--config=${file('kubelet.json')}`,
      `--kubeconfig=${await controlPlane.kubeconfigOf('kubelet')}`,
      `--hostname-override=${nodeName}`,
      `--node-ip=${ADDRESS}`,
    ],
    env: {
      PATH: [...others.map(dirname), process.env.PATH].join(delimiter),
      HTTPS_PROXY: environment.gateway,
      NO_PROXY: '127.0.0.1',
    },
    outputFile: file('node.log'),
    ready: () => isReady(controlPlane),
    readyWithinMs: 120_000,
  })
  // Nothing of it survives, so nothing of it needs a graceful stop.
  return { output: started.output, stop: () => started.stop(0) }
}

/** One after the other: only one program is built at a time. */
async function built(names: ToolName[]): Promise<string[]> {
  const paths: string[] = []
  for (const name of names) paths.push(await tool(name))
  return paths
}

/** Whether its kubelet says so, and the cluster sends it pods. */
async function isReady(controlPlane: ControlPlane): Promise<boolean> {
  const core = controlPlane.kubeConfig().makeApiClient(CoreV1Api)
  const node = await core.readNode({ name: nodeName }).catch(() => undefined)
  const ready = node?.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True'
  return ready && node?.spec?.taints === undefined
}
