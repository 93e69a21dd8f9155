import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ControlPlane } from './control-plane.ts'
import { makeFolder, run } from './processes.ts'
import { tool } from './tools.ts'

/** The namespace of the release. */
export const releaseNamespace = 'pullpass'

const chart = join(import.meta.dirname, '..', 'charts', 'pullpass')
const templates = ['rbac.yaml', 'secrets-policy.yaml', 'webhook.yaml']

/**
 * Installs what a pullpass process beside the cluster needs of the chart: its ServiceAccount with
 * its rights, the policy on its Secrets, and the webhook configuration, which sends pods to
 * `webhookUrl`. Can be repeated with another URL.
 */
export async function installBeside(
  controlPlane: ControlPlane,
  options: {
    domain: string
    webhookUrl: string
    failurePolicy: 'Ignore' | 'Fail'
    /** Default: that of the chart. */
    pullSecretName?: string
  },
): Promise<void> {
  const folder = await makeFolder('install')
  try {
    const values = join(folder.path, 'values.json')
    const manifests = join(folder.path, 'manifests.yaml')
    await writeFile(values, JSON.stringify(valuesFor(options)))
    await writeFile(manifests, `${JSON.stringify(namespace)}\n---\n${await render(values)}`)
    await kubectl(controlPlane, 'apply', '-f', manifests)
  } finally {
    await folder.remove()
  }
}

const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: releaseNamespace } }

function valuesFor(options: Parameters<typeof installBeside>[1]) {
  const { domain, webhookUrl, failurePolicy, pullSecretName } = options
  return {
    ...(pullSecretName && { pullSecret: { name: pullSecretName } }),
    domain,
    bluemix: { organization: 'acme' },
    credentials: { existingSecret: 'bluemix' },
    image: { repository: 'not-used' },
    webhook: { url: webhookUrl, failurePolicy },
    secretsPolicy: 'on',
  }
}

async function render(values: string): Promise<string> {
  const { code, stdout, stderr } = await run({
    command: await tool('helm'),
    args: [
      ...['template', 'pullpass', chart, '--namespace', releaseNamespace, '--values', values],
      ...templates.flatMap(name => ['--show-only', `templates/${name}`]),
    ],
  })
  if (code !== 0) throw new Error(`the chart cannot be rendered: ${stderr}`)
  return stdout
}

/** Runs kubectl and resolves with its output. Rejects if it fails. */
export async function kubectl(controlPlane: ControlPlane, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await controlPlane.kubectl(...args)
  if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`)
  return stdout
}
