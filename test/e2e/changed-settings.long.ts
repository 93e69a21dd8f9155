// pullpass runs again and again in one cluster, each time with other settings.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { V1Secret } from '@kubernetes/client-node'
import t from 'tap'
import {
  type BluemixEnvironment,
  startBluemixEnvironment,
} from '../../sandbox/bluemix/environment.ts'
import { installBeside } from '../../sandbox/install.ts'
import { onFreePorts } from '../../sandbox/ports.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { type Pullpass, startPullpass } from '../../sandbox/pullpass.ts'
import { startTestbed } from '../../sandbox/testbed.ts'
import { reachEnvironment } from '../sandbox/bluemix-caller.ts'
import { runCleanUp } from './clean-up.ts'
import { reachCluster } from './cluster.ts'

const testbed = await startTestbed({
  registry: false,
  controllerManager: false,
  pullpass: undefined,
  progress: () => {},
})
t.teardown(() => testbed.stop())
const { controlPlane, environment } = testbed
const cluster = reachCluster(controlPlane, () => {})
t.teardown(() => cluster.close())
const caller = reachEnvironment(t, environment)
const within = { withinMs: 60_000 }
const shop = '/api/v1/namespaces/shop/secrets'

interface Change {
  environment?: BluemixEnvironment
  settings?: Record<string, Record<string, unknown>>
  secretName?: string
  clusterName?: string
}

let running: Pullpass | undefined
t.teardown(() => running?.stop())

/** Ends the process before and starts another one. */
async function run(change: Change = {}): Promise<void> {
  const { settings = {}, secretName = 'pullpass-registry', clusterName } = change
  await running?.stop()
  running = await onFreePorts(async (webhook, operations) => {
    const webhookUrl = `https://127.0.0.1:${webhook}/mutate`
    const { domain } = environment
    const failurePolicy = 'Ignore'
    await installBeside(controlPlane, {
      domain,
      webhookUrl,
      failurePolicy,
      pullSecretName: secretName,
    })
    const name = clusterName === undefined ? {} : { PULLPASS_CLUSTER_NAME: clusterName }
    const pullpass = await startPullpass({
      controlPlane,
      environment: change.environment ?? environment,
      ports: { webhook, operations },
      settings: { ...settings, pullSecret: { name: secretName } },
      launch: program => ({ ...program, env: { ...program.env, ...name } }),
    })
    await pullpass.whenReady()
    return pullpass
  })
}

const live = (of = environment) =>
  of.ledger.liveTokens().filter(({ description }) => description.split('/')[2] === 'shop')

async function held(name = 'pullpass-registry', host = environment.hosts.registry) {
  const { body } = await cluster.ask<V1Secret>('GET', `${shop}/${name}`)
  const text = Buffer.from(body.data?.['.dockerconfigjson'] ?? '', 'base64').toString()
  return JSON.parse(text || '{}').auths?.[host]?.password as string | undefined
}

/** The Secret of the namespace holds its one live token. */
async function whenRight(name = 'pullpass-registry', host = environment.hosts.registry) {
  const isRight = async () => live().length === 1 && live()[0]?.text === (await held(name, host))
  await waitFor(isRight, { ...within, what: `${name} to hold the one live token` })
}

/** The command of docs/operations.md that contains this. */
async function printed(part: string): Promise<string> {
  const docs = join(import.meta.dirname, '../../docs/operations.md')
  const lines = (await readFile(docs, 'utf8')).split('\n')
  return lines.find(line => line.startsWith('kubectl ') && line.includes(part)) ?? ''
}

await run()
await cluster.namespace('shop')
await whenRight()

t.test('a new pullSecret.name: the same token, and the old Secret stays as it is', async t => {
  const before = (await cluster.ask<V1Secret>('GET', `${shop}/pullpass-registry`)).body
  await run({ secretName: 'other-name' })
  await whenRight('other-name')
  t.equal(environment.ledger.mints().filter(each => each.permanent).length, 1)
  t.same((await cluster.ask<V1Secret>('GET', `${shop}/pullpass-registry`)).body, before)
})

t.test('the former pullSecret.name again: no dead token is kept', async t => {
  const dead = await held('pullpass-registry')
  for (const { id } of live()) await caller.tokens('DELETE', `/${id}`)
  await whenRight('other-name')
  t.equal(await held('pullpass-registry'), dead, 'while the other name is used, it is left alone')
  await run()
  await whenRight()
  t.equal(await held(), await held('other-name'), 'the live token is adopted')
})

t.test('the printed command deletes the Secrets of the former name, and no others', async t => {
  const line = (await printed('--field-selector')).replace('=pullpass-registry,', '=other-name,')
  const { code, stderr } = await controlPlane.kubectl(...line.split(' ').slice(1))
  t.equal(code, 0, stderr)
  t.equal(await held('other-name'), undefined)
  await whenRight()
})

t.test('a new registry.host: the same token under the new host', async t => {
  const [before] = live()
  const url = `https://${environment.hosts.registry}`
  await run({ settings: { registry: { host: 'images.example.com', url } } })
  await whenRight('pullpass-registry', 'images.example.com')
  t.equal(live()[0]?.id, before?.id)
  await run()
  await whenRight()
})

t.test('a new default organization: a token of it, and the former one is revoked', async t => {
  const [before] = live()
  const whenIn = async (organization: string) => {
    const isIn = () => live().some(token => token.organization === organization)
    await waitFor(isIn, { ...within, what: `a token of ${organization}` })
    await whenRight()
    t.equal(live()[0]?.organization, organization)
  }
  t.equal(before?.organization, 'acme')
  await run({ settings: { bluemix: { organization: 'acme-data' } } })
  await whenIn('acme-data')
  await run()
  await whenIn('acme')
})

t.test('a new clusterName: a token of it, and clean-up takes back those of the former', async t => {
  const [before] = live()
  const { metadata } = (await cluster.ask<V1Secret>('GET', '/api/v1/namespaces/kube-system')).body
  const former = metadata?.uid ?? ''
  await run({ clusterName: 'renamed' })
  const isReplaced = async () => (await held()) !== before?.text
  await waitFor(isReplaced, { ...within, what: 'a token of the new name' })
  const site = { environment, controlPlane }
  const named = await runCleanUp(site, { clusterName: 'renamed' })
  t.equal(named.code, 0, named.output)
  t.equal(live().length, 2, 'it takes nothing back by itself')
  const options = { clusterName: 'renamed', arguments: ['--cluster', former] }
  const { code, output } = await runCleanUp(site, options)
  t.equal(code, 0, output)
  await whenRight()
  t.match(live()[0]?.description, 'pullpass/renamed/shop/')
})

t.test('a new domain: tokens there; what is left is found by its description', async t => {
  const other = await startBluemixEnvironment({ domain: 'other.example.com' })
  t.teardown(() => other.stop())
  await run({ environment: other, clusterName: 'renamed' })
  const host = other.hosts.registry
  const isThere = async () =>
    live(other).length === 1 && live(other)[0]?.text === (await held('pullpass-registry', host))
  await waitFor(isThere, { ...within, what: 'a token of the other environment' })
  t.match(
    live().map(({ description }) => description),
    [/^pullpass\/renamed\/shop\//],
  )
})
