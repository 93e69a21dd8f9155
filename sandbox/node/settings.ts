import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Where the parts of a node are. */
export interface Site {
  /** The folder of the node, with `site.file(name)`. */
  file(name: string): string
  /** The name of its cgroup. */
  cgroup: string
  /** The folder of each program. */
  programs: { runc: string; networkPlugins: string[] }
  registry: { host: string; caFile: string }
}

export const pauseImage = 'localhost/pause:1'

/** What the kubelet wants of the kernel: kubernetes/pkg/kubelet/cm/container_manager_linux.go. */
const KERNEL_SETTINGS = {
  'vm/overcommit_memory': '1',
  'vm/panic_on_oom': '0',
  'kernel/panic': '10',
  'kernel/panic_on_oops': '1',
  'kernel/keys/root_maxkeys': '1000000',
  'kernel/keys/root_maxbytes': '25000000',
}

/** Writes the files that containerd, the network plugin and the kubelet read. */
export async function writeSettings(site: Site): Promise<void> {
  const { file, registry } = site
  for (const folder of ['lib', 'log', 'images']) await mkdir(file(folder))
  for (const [name, value] of Object.entries(KERNEL_SETTINGS)) {
    await write(file(join('sysctl', name)), `${value}\n`)
  }
  await write(file('containerd.toml'), containerdSettings(site))
  await write(file(`registries/${registry.host}/hosts.toml`), registrySettings(site))
  await write(file('network/sandbox.conflist'), JSON.stringify(networkSettings(site)))
  await write(file('kubelet.json'), JSON.stringify(kubeletSettings(site)))
  await write(file('runc'), runtimeScript(site))
  await chmod(file('runc'), 0o755)
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}

function containerdSettings({ file, programs }: Site): string {
  const images = "plugins.'io.containerd.cri.v1.images'"
  const runtime = "plugins.'io.containerd.cri.v1.runtime'"
  return `version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
[grpc]
address = '${file('containerd.sock')}'
[plugins.'io.containerd.internal.v1.opt']
path = '${file('opt')}'
[${images}.pinned_images]
sandbox = '${pauseImage}'
[${images}.registry]
config_path = '${file('registries')}'
[${runtime}]
restrict_oom_score_adj = true
[${runtime}.cni]
bin_dirs = ${JSON.stringify(programs.networkPlugins)}
conf_dir = '${file('network')}'
[${runtime}.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[${runtime}.containerd.runtimes.runc.options]
BinaryName = '${file('runc')}'
`
}

function registrySettings({ registry }: Site): string {
  const url = `https://${registry.host}`
  return `server = '${url}'
[host.'${url}']
capabilities = ['pull', 'resolve']
ca = '${registry.caFile}'
`
}

/** A pair of interfaces for each pod; the node routes between them. */
function networkSettings({ file }: Site): object {
  const ipam = {
    type: 'host-local',
    dataDir: file('addresses'),
    ranges: [[{ subnet: '10.244.0.0/24' }]],
    routes: [{ dst: '0.0.0.0/0' }],
  }
  return { cniVersion: '1.0.0', name: 'sandbox', plugins: [{ type: 'ptp', ipam }] }
}

/** The gates, the limits and the times are those of a kubelet without settings. */
function kubeletSettings({ file, cgroup }: Site): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    containerRuntimeEndpoint: `unix://${file('containerd.sock')}`,
    volumePluginDir: file('volume-plugins'),
    cgroupDriver: 'cgroupfs',
    cgroupRoot: `/${cgroup}`,
    failCgroupV1: false,
    failSwapOn: false,
    // Only the sandbox reaches its port.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    healthzPort: 0,
    makeIPTablesUtilChains: false,
    oomScoreAdj: 0,
    // The disk is that of the machine: whether it is full is not a matter of the node.
    evictionHard: { 'memory.available': '1Mi' },
    imageGCHighThresholdPercent: 100,
  }
}

/**
 * runc is built without libseccomp, which is no Go module, and refuses a container with a filter of
 * system calls; the kubelet wants one for each pod. So the filter is left out.
 */
function runtimeScript({ programs }: Site): string {
  const withoutFilter =
    'const f = process.argv[1] + "/config.json", s = JSON.parse(fs.readFileSync(f));' +
    'delete s.linux.seccomp; fs.writeFileSync(f, JSON.stringify(s))'
  return `#!/bin/sh
previous=
for word; do
  [ "$previous" = --bundle ] && ${process.execPath} -e '${withoutFilter}' "$word"
  previous=$word
done
exec ${programs.runc} "$@"
`
}
