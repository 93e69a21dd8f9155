import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { build, type Source } from './tools/build.ts'
import { ENVTEST_TOOLS } from './tools/go.ts'
import { ToolError } from './tools/tool-error.ts'

const KUBERNETES_VERSIONS = ['1.34', '1.36', '1.37'] as const
export type KubernetesVersion = (typeof KUBERNETES_VERSIONS)[number]
export const NEWEST: KubernetesVersion = '1.37'

const KUBERNETES_TOOLS = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubectl'] as const
const OTHER_TOOLS = ['crane', 'registry', 'helm', 'helm3', 'helm-docs'] as const
/** What a real node needs too: its own programs, the scheduler, and two programs for its images. */
const NODE_TOOLS = [
  ...(['kubelet', 'kube-scheduler'] as const),
  ...(['containerd', 'containerd-shim-runc-v2', 'ctr', 'runc'] as const),
  ...(['ptp', 'host-local', 'loopback'] as const),
  ...(['gosh', 'sleep'] as const),
] as const
export type ToolName =
  | (typeof KUBERNETES_TOOLS)[number]
  | (typeof OTHER_TOOLS)[number]
  | (typeof NODE_TOOLS)[number]

/** What tests and demo need without a real node. */
const USUAL: readonly ToolName[] = [...KUBERNETES_TOOLS, ...OTHER_TOOLS]

/**
 * The Go packages of the tools. `folder` is the module under `tools/` that pins the package, `module`
 * is the module that defines its version, `stamp` are the variables that its release build sets, and
 * `takes` is the duration of a first build on two cores. `kubernetes` stands for the module of the
 * requested version.
 */
const SOURCES: Record<ToolName, Source> = {
  etcd: {
    folder: 'kubernetes',
    module: 'go.etcd.io/etcd/server/v3',
    takes: '10 s',
  },
  'kube-apiserver': kubernetes('kube-apiserver', '3 min'),
  'kube-controller-manager': kubernetes('kube-controller-manager', '1 min'),
  kubectl: kubernetes('kubectl', '30 s'),
  crane: {
    folder: 'crane',
    module: 'github.com/google/go-containerregistry',
    path: 'cmd/crane',
    stamp: pinned => ({
      'github.com/google/go-containerregistry/cmd/crane/cmd.Version': pinned(
        'github.com/google/go-containerregistry',
      ),
    }),
    takes: '20 s',
  },
  registry: {
    folder: 'registry',
    module: 'github.com/distribution/distribution/v3',
    path: 'cmd/registry',
    takes: '1 min',
  },
  helm: {
    folder: 'helm',
    module: 'helm.sh/helm/v4',
    path: 'cmd/helm',
    stamp: pinned => ({ 'helm.sh/helm/v4/internal/version.version': pinned('helm.sh/helm/v4') }),
    takes: '1 min',
  },
  helm3: {
    folder: 'helm3',
    module: 'helm.sh/helm/v3',
    path: 'cmd/helm',
    // The default Kubernetes version of `helm template`.
    stamp: pinned => ({
      'helm.sh/helm/v3/internal/version.version': pinned('helm.sh/helm/v3'),
      'helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor': '1',
      'helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor': minor(pinned('k8s.io/client-go')),
      'helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor': '1',
      'helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor': minor(pinned('k8s.io/client-go')),
    }),
    takes: '1 min',
  },
  'helm-docs': {
    folder: 'helm-docs',
    module: 'github.com/norwoodj/helm-docs',
    path: 'cmd/helm-docs',
    takes: '20 s',
  },
  kubelet: kubernetes('kubelet', '30 s'),
  'kube-scheduler': kubernetes('kube-scheduler', '10 s'),
  containerd: containerd('containerd', '1 min'),
  'containerd-shim-runc-v2': containerd('containerd-shim-runc-v2', '10 s'),
  ctr: containerd('ctr', '10 s'),
  runc: { folder: 'node', module: 'github.com/opencontainers/runc', cgo: true, takes: '20 s' },
  ptp: networkPlugin('main/ptp'),
  'host-local': networkPlugin('ipam/host-local'),
  loopback: networkPlugin('main/loopback'),
  gosh: smallProgram('gosh'),
  sleep: smallProgram('sleep'),
}

/**
 * Absolute path of a tool. If it is not in the cache, it is built first (progress on stderr).
 *
 * `version` is that of Kubernetes and applies only to its tools; default: PULLPASS_KUBERNETES, or the
 * newest. Without `version`, etcd, kube-apiserver and kubectl come from the folder KUBEBUILDER_ASSETS
 * if that is set, as in envtest. Rejects with a ToolError, whose message is for the user.
 */
export async function tool(
  name: ToolName,
  options: { version?: KubernetesVersion | undefined; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const { env = process.env, version = askedVersion(env) } = options
  const assets = env.KUBEBUILDER_ASSETS
  if (assets && version === undefined && ENVTEST_TOOLS.includes(name)) return given(assets, name)
  const source = SOURCES[name]
  const folder = source.folder === 'kubernetes' ? `kubernetes-${version ?? NEWEST}` : source.folder
  return build(name, { ...source, folder }, env)
}

function kubernetes(command: string, takes: string): Source {
  return {
    folder: 'kubernetes',
    module: 'k8s.io/kubernetes',
    path: `cmd/${command}`,
    stamp: pinned => ({
      'k8s.io/component-base/version.gitVersion': pinned('k8s.io/kubernetes'),
      'k8s.io/component-base/version.gitMajor': '1',
      'k8s.io/component-base/version.gitMinor': minor(pinned('k8s.io/kubernetes')),
      'k8s.io/client-go/pkg/version.gitVersion': pinned('k8s.io/kubernetes'),
    }),
    takes,
  }
}

function containerd(command: string, takes: string): Source {
  return {
    folder: 'node',
    module: 'github.com/containerd/containerd/v2',
    path: `cmd/${command}`,
    tags: ['no_btrfs', 'no_zfs', 'no_devmapper'],
    takes,
  }
}

function networkPlugin(path: string): Source {
  return {
    folder: 'node',
    module: 'github.com/containernetworking/plugins',
    path: `plugins/${path}`,
    takes: '10 s',
  }
}

function smallProgram(command: string): Source {
  return {
    folder: 'node',
    module: 'github.com/u-root/u-root',
    path: `cmds/core/${command}`,
    takes: '10 s',
  }
}

function minor(version: string): string {
  return version.split('.')[1] ?? ''
}

/** PULLPASS_KUBERNETES; undefined if it is not set, which means the newest. Throws a ToolError if it is not supported. */
export function askedVersion(env: NodeJS.ProcessEnv): KubernetesVersion | undefined {
  const asked = env.PULLPASS_KUBERNETES
  if (!asked) return undefined
  const version = KUBERNETES_VERSIONS.find(known => known === asked)
  if (version !== undefined) return version
  throw new ToolError(
    `PULLPASS_KUBERNETES must be one of ${KUBERNETES_VERSIONS.join(', ')}, got "${asked}"`,
  )
}

function given(assets: string, name: ToolName): string {
  const file = resolve(assets, name)
  if (existsSync(file)) return file
  throw new ToolError(`KUBEBUILDER_ASSETS is ${assets}, but there is no ${name} in it`)
}

/** Builds what is not in the cache yet, also for a node. */
export async function buildAll(): Promise<void> {
  for (const name of [...USUAL, ...NODE_TOOLS]) await tool(name)
}

/** `node sandbox/tools.ts [tool]...` builds the named tools, by default the usual ones. */
async function main(args: string[]): Promise<void> {
  for (const name of args.length > 0 ? args.map(named) : USUAL) console.log(await tool(name))
}

function named(argument: string): ToolName {
  const all = [...USUAL, ...NODE_TOOLS]
  const name = all.find(known => known === argument)
  if (name !== undefined) return name
  throw new ToolError(`there is no tool "${argument}"; there are ${all.join(', ')}`)
}

if (import.meta.main) {
  main(process.argv.slice(2)).catch(error => {
    console.error(error instanceof ToolError ? error.message : error)
    process.exitCode = 1
  })
}
