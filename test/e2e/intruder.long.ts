import t from 'tap'
import { Agent, fetch } from 'undici'
import { type ControlPlane, startControlPlane } from '../../sandbox/control-plane.ts'
import { installBeside, kubectl, releaseNamespace } from '../../sandbox/install.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { startFixture } from './fixture.ts'
import {
  accountToken,
  core,
  dockerconfig,
  label,
  policy,
  pull,
  secret,
  secretName,
  type Verdict,
  ways,
} from './intruder-ways.ts'

interface Sent {
  method: string
  headers?: Record<string, string>
  query?: string
}

const verbs: Record<string, Sent> = {
  APPLY: {
    method: 'PATCH',
    headers: { 'content-type': 'application/apply-patch+yaml' },
    query: 'fieldManager=pullpass&force=true',
  },
  MERGE: { method: 'PATCH', headers: { 'content-type': 'application/merge-patch+json' } },
  IMPERSONATE: {
    method: 'GET',
    headers: { 'impersonate-user': 'admin', 'impersonate-group': 'system:masters' },
  },
}

/** Sends requests with the token of the ServiceAccount of pullpass only. */
async function createIntruder(controlPlane: ControlPlane) {
  const token = await controlPlane.token(releaseNamespace, 'pullpass')
  const dispatcher = new Agent({ connect: { ca: controlPlane.ca } })
  const ask = async (verb: string, path: string, body: object, dryRun = true) => {
    const { method, headers = {}, query = '' } = verbs[verb] ?? { method: verb }
    const url = new URL(`${path}${path.includes('?') ? '&' : '?'}${query}`, controlPlane.url)
    if (dryRun && method !== 'GET') url.searchParams.set('dryRun', 'All')
    const response = await fetch(url, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        ...headers,
      },
      body: method === 'GET' ? null : JSON.stringify(named(body, path)),
      dispatcher,
    })
    return { status: response.status, text: await response.text() }
  }
  return { ask, close: () => dispatcher.close() }
}

/** An applied object contains its own name. */
function named(body: object, path: string) {
  if (!('kind' in body)) return body
  const name = path.split('/').at(-1)
  return { ...body, metadata: { name, ...('metadata' in body ? (body.metadata as object) : {}) } }
}

const controlPlane = await startControlPlane({ controllerManager: true })
t.teardown(() => controlPlane.stop())
await installBeside(controlPlane, {
  domain: 'dedicated.example.com',
  webhookUrl: 'https://127.0.0.1:1/mutate',
  failurePolicy: 'Ignore',
})
await kubectl(controlPlane, 'create', 'namespace', 'shop')
const intruder = await createIntruder(controlPlane)
t.teardown(() => intruder.close())

async function attempt(): Promise<Verdict[]> {
  const verdicts: Verdict[] = []
  for (const [, verb, path, body] of ways) {
    const { status } = await intruder.ask(verb, path, body)
    verdicts.push(status < 300 ? 'allowed' : 'refused')
  }
  return verdicts
}

/** The API server needs a moment to apply a new policy, and to remove it. */
async function whenEscalation(verdict: Verdict) {
  const path = core('kube-system', `secrets/${secretName}`)
  const holds = async () =>
    (await intruder.ask('APPLY', path, accountToken)).status < 300 === (verdict === 'allowed')
  await waitFor(holds, { withinMs: 30_000, what: `the escalation to be ${verdict}` })
}

t.test('a pull Secret is repaired even if somebody else added a data key', async t => {
  await whenEscalation('refused')
  const path = core('shop', `secrets/${secretName}`)
  const own = secret(dockerconfig, pull)
  t.match(await intruder.ask('APPLY', path, own, false), { status: 201 })
  const edit = {
    metadata: { labels: { team: 'shop' } },
    data: { more: 'eA==', '.dockerconfigjson': 'e30=' },
  }
  await kubectl(
    controlPlane,
    'patch',
    'secret',
    secretName,
    '-n',
    'shop',
    '-p',
    JSON.stringify(edit),
  )
  const repaired = await intruder.ask('APPLY', path, own, false)
  t.equal(repaired.status, 200, repaired.text)
  t.match(JSON.parse(repaired.text).data, { ...pull, more: 'eA==' })
  const another = secret(dockerconfig, { ...pull, more: 'eQ==' })
  t.match(await intruder.ask('APPLY', path, another), { status: 403 }, 'nor may it change that key')
  await kubectl(controlPlane, 'delete', 'secret', secretName, '-n', 'shop')
})

t.test('an intruder with the token of pullpass can do no more than the table says', async t => {
  await whenEscalation('refused')
  const withPolicy = await attempt()
  await kubectl(controlPlane, 'delete', 'validatingadmissionpolicybinding', policy)
  await whenEscalation('allowed')
  const without = await attempt()
  t.comment(`${'way'.padEnd(48)} without   with policy`)
  for (const [index, [what, , , , expected]] of ways.entries()) {
    const seen = [without[index], withPolicy[index]]
    t.comment(`${what.padEnd(48)} ${seen[0]?.padEnd(9)} ${seen[1]}`)
    t.same(seen, expected, what)
  }
})

t.test('pullpass repairs an edited Secret while the policy is active', async t => {
  const fixture = await startFixture(t, startSandbox())
  await fixture.namespace('edited')
  const { data: before } = await fixture.whenSecret('edited')
  const data = { more: 'eA==', '.dockerconfigjson': Buffer.from('{}').toString('base64') }
  const edit = { metadata: { labels: { team: 'shop' } }, data }
  const path = core('edited', `secrets/${secretName}`)
  t.match(await fixture.ask('PATCH', path, edit), { status: 200 })
  const repaired = await fixture.whenSecret(
    'edited',
    secret => secret.data?.['.dockerconfigjson'] === before?.['.dockerconfigjson'],
  )
  t.match(repaired, { data: { more: 'eA==' }, metadata: { labels: { team: 'shop', ...label } } })
})
