import { run } from '../processes.ts'
import { ToolError } from './tool-error.ts'

/** The programs that setup-envtest installs into the folder KUBEBUILDER_ASSETS. */
export const ENVTEST_TOOLS: readonly string[] = ['etcd', 'kube-apiserver', 'kubectl']

/**
 * Rejects with a sentence that says what to install or set, if Go is missing or older than `oldest`
 * (a version as in go.mod). `folder` is the module; Go can download a newer version of itself for it.
 */
export async function checkGo(
  name: string,
  { folder, env, oldest }: { folder: string; env: NodeJS.ProcessEnv; oldest: string },
): Promise<void> {
  const { code, stdout } = await run({
    command: 'go',
    args: ['env', 'GOVERSION'],
    cwd: folder,
    env,
  })
  const version = stdout.trim().replace(/^go/, '')
  if (code === 0 && !isOlder(version, oldest)) return

  const needed = oldest.split('.').slice(0, 2).join('.')
  const found = { 0: `Go ${version} is too old`, 127: 'there is no Go on the PATH' }[code ?? 1]
  throw new ToolError(
    `The sandbox builds ${name} with Go ${needed} or newer, but ` +
      `${found ?? 'the Go on the PATH is older'}: install it from https://go.dev/dl/` +
      (ENVTEST_TOOLS.includes(name) ? `, or ${OR_SET}.` : '.'),
  )
}

const OR_SET =
  'set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl (setup-envtest makes one)'

function isOlder(version: string, oldest: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(part => Number.parseInt(part, 10))
  const [oldestMajor = 0, oldestMinor = 0] = oldest.split('.').map(Number)
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor)
}
