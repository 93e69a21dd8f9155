import { readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import type { PodAddresses } from './addresses.ts'
import { acceptExec, type Exec, readAsk } from './exec.ts'

/**
 * What the API server asks a kubelet for on behalf of `kubectl logs` and `kubectl exec`
 * (kubernetes/kubernetes pkg/registry/core/pod):
 *
 *   GET /containerLogs/<namespace>/<pod>/<container>
 *   GET /exec/<namespace>/<pod>/<container>?command=...   (a WebSocket)
 *
 * It does not look at the certificate. Anything else is refused in words.
 */
export async function startKubeletServer(options: {
  addresses: PodAddresses
  namespace: string
  logs: (pod: string, container: string) => Promise<string>
  exec: Exec
}): Promise<{ stop(): void }> {
  const pair = await generate([{ name: 'commonName', value: 'sandbox-node' }], {
    algorithm: 'sha256',
  })
  const server = createServer({ key: pair.private, cert: pair.cert }, async (request, response) => {
    const { what, namespace, pod, container, query } = readAsk(request)
    const refused = whyNot(what, namespace === options.namespace, query)
    response.writeHead(refused ? 501 : 200, { 'content-type': 'text/plain' })
    response.end(refused ?? (await options.logs(pod, container)))
  })
  const { namespace, exec } = options
  server.on('upgrade', acceptExec({ namespace, exec }))
  options.addresses.serve(socket => server.emit('connection', socket))
  return {
    stop() {
      server.closeAllConnections()
    },
  }
}

/** All that is written in the files below a folder, in the order of their names; '' without one. */
export async function readLogs(folder: string): Promise<string> {
  const files = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  const paths = files.filter(file => file.isFile()).map(file => join(file.parentPath, file.name))
  return (await Promise.all(paths.sort().map(file => readFile(file, 'utf8')))).join('')
}

function whyNot(what: string, here: boolean, query: URLSearchParams): string | undefined {
  if (what !== 'containerLogs' || !here) {
    return 'this node only serves the logs of its pods and runs commands in them'
  }
  const asked = [...query].find(([name, value]) => name !== 'timestamps' && value !== 'false')
  return asked && `this node cannot serve logs with ${asked.join('=')}`
}
