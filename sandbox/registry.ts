import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { onFreePorts } from './ports.ts'
import { type Folder, makeFolder, run, startProcess } from './processes.ts'
import { tool } from './tools.ts'

/** The issuer whose tokens a registry accepts (distribution docs/content/about/configuration.md, auth.token). */
export interface RegistryAuth {
  /** The URL at which its clients get tokens, e.g. `https://registry.<domain>/oauth/token`. */
  realm: string
  /** Must be the tokens' `aud`. */
  service: string
  /** Must be the tokens' `iss`. */
  issuer: string
  /** The certificate of the key that signs the tokens, PEM. */
  rootCertificate: string
}

export interface Registry {
  readonly port: number
  readonly url: string
  /** Its log. */
  output(): string
  stop(): Promise<void>
}

/** Starts an empty distribution registry on plain HTTP at 127.0.0.1; the environment terminates TLS. */
export async function startRegistry(auth: RegistryAuth): Promise<Registry> {
  const command = await tool('registry')
  const folder = await makeFolder('registry')
  try {
    const rootcertbundle = join(folder.path, 'tokens.crt')
    await writeFile(rootcertbundle, auth.rootCertificate)
    return await onFreePorts(async port => {
      const url = `http://127.0.0.1:${port}`
      const { realm, service, issuer } = auth
      const file = await writeJson(folder, 'registry.yaml', {
        version: '0.1',
        log: { level: 'info' },
        storage: { filesystem: { rootdirectory: join(folder.path, 'storage') } },
        // It does not know the host name that its clients use, so it returns relative URLs.
        http: { addr: `127.0.0.1:${port}`, relativeurls: true },
        auth: { token: { realm, service, issuer, rootcertbundle } },
      })
      const registry = await startProcess({
        name: 'registry',
        command,
        args: ['serve', file],
        env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
        outputFile: join(folder.path, 'registry.log'),
        ready: () => asksForToken(url),
      })
      return {
        port,
        url,
        output: registry.output,
        async stop() {
          await registry.stop(0)
          await folder.remove()
        },
      }
    })
  } catch (error) {
    await folder.remove()
    throw error
  }
}

/** How clients reach a registry whose name only the gateway resolves. Its CA is in `caFile`. */
export interface Route {
  /** An HTTP proxy, `http://127.0.0.1:PORT`. */
  gateway: string
  caFile: string
}

/**
 * Pushes an image of one small file with crane, and resolves with its digest.
 *
 * @param reference as a pod names it, e.g. `registry.<domain>/acme/hello:1`
 */
export async function pushTestImage(
  reference: string,
  credential: { username: string; password: string },
  route: Route,
): Promise<string> {
  return withCrane(configFor(reference, credential), route, async (crane, folder) => {
    await writeFile(join(folder, 'hello.txt'), `This is ${reference}.\n`)
    const layer = join(folder, 'layer.tar')
    await run({ command: 'tar', args: ['-cf', layer, '-C', folder, 'hello.txt'] })
    const { code, stdout, stderr } = await crane('append', '-f', layer, '-t', reference)
    if (code !== 0) throw new Error(`cannot push ${reference}: ${stderr.trim()}`)
    return stdout.trim().split('@')[1] ?? ''
  })
}

/** Pushes an image in a file, as `docker save` makes it; resolves with its digest. */
export async function pushImage(
  reference: string,
  credential: { username: string; password: string },
  route: Route,
  archive: string,
): Promise<string> {
  return withCrane(configFor(reference, credential), route, async crane => {
    const { code, stdout, stderr } = await crane('push', archive, reference)
    if (code !== 0) throw new Error(`cannot push ${reference}: ${stderr.trim()}`)
    return stdout.trim().split('@')[1] ?? ''
  })
}

/**
 * Pulls an image with crane, manifest and layers, with the credentials of `dockerConfigJson` only
 * (the text in a pull secret; absent: none). `output` is that of crane.
 */
export async function pullImage(
  reference: string,
  dockerConfigJson: string | undefined,
  route: Route,
): Promise<{ ok: boolean; output: string; digest: string | undefined }> {
  return withCrane(dockerConfigJson ?? '{}', route, async (crane, folder) => {
    const pulled = await crane('pull', reference, join(folder, 'image.tar'))
    const output = (pulled.stdout + pulled.stderr).trim()
    if (pulled.code !== 0) return { ok: false, output, digest: undefined }
    const { stdout } = await crane('digest', reference)
    return { ok: true, output, digest: stdout.trim() }
  })
}

function configFor(
  reference: string,
  { username, password }: { username: string; password: string },
): string {
  const host = reference.split('/')[0] as string
  const auth = Buffer.from(`${username}:${password}`).toString('base64')
  return JSON.stringify({ auths: { [host]: { auth } } })
}

type Crane = (...args: string[]) => ReturnType<typeof run>

async function withCrane<T>(
  dockerConfigJson: string,
  { gateway, caFile }: Route,
  work: (crane: Crane, folder: string) => Promise<T>,
): Promise<T> {
  const command = await tool('crane')
  const folder = await makeFolder('crane')
  try {
    await writeFile(join(folder.path, 'config.json'), dockerConfigJson)
    // Without the credentials and proxy settings of the user who runs this.
    const env = {
      PATH: process.env.PATH,
      HOME: folder.path,
      DOCKER_CONFIG: folder.path,
      HTTPS_PROXY: gateway,
      SSL_CERT_FILE: caFile,
    }
    return await work((...args) => run({ command, args, env }), folder.path)
  } finally {
    await folder.remove()
  }
}

async function asksForToken(url: string): Promise<boolean> {
  const response = await fetch(`${url}/v2/`).catch(() => undefined)
  await response?.body?.cancel()
  return response?.status === 401
}

async function writeJson(folder: Folder, name: string, content: unknown): Promise<string> {
  const file = join(folder.path, name)
  await writeFile(file, JSON.stringify(content))
  return file
}
