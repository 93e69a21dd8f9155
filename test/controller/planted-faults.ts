import { spawnSync } from 'node:child_process'
import { parseArgs } from 'node:util'

/*
 * What the random walk is worth: each fault takes one condition out of what decides that a token is
 * revoked or a Secret deleted, and the walk has to find it.
 *
 *     node test/controller/planted-faults.ts [--seconds 60] [--only NAME]
 */

interface PlantedFault {
  file: string
  /** Stands in the file once. */
  text: string
  instead: string
}

const revocation = 'src/controller/revocation.ts'
const orphans = 'src/controller/orphans.ts'
const identity = 'src/controller/identity.ts'
const standing = 'src/controller/standing.ts'
const plan = 'src/controller/plan.ts'
const actions = 'src/controller/actions.ts'

export const plantedFaults: Readonly<Record<string, PlantedFault>> = {
  'a token that no list shows any more': {
    file: revocation,
    text: ' || !isShown(token, 1)',
    instead: '',
  },
  'missing once is gone': {
    file: revocation,
    text: "namespace === 'missing') return undefined",
    instead: 'false) return undefined',
  },
  'gone: two lists': {
    file: revocation,
    text: "isShown(token, 2) ? 'gone' : undefined",
    instead: "'gone'",
  },
  'left: the grace on the Secret': {
    file: revocation,
    text: "isLeft(secret, own, now) ? 'left' : undefined",
    instead: "'left'",
  },
  'beside: the namespace is ready': {
    file: revocation,
    text: '!isReady(about) || own',
    instead: 'own',
  },
  'beside: the token is not its own': {
    file: revocation,
    text: ' || own === token',
    instead: '',
  },
  'beside: its own is live': {
    file: revocation,
    text: '!isLive(own, now) || ',
    instead: '',
  },
  'beside: two lists show its own': {
    file: revocation,
    text: ' || !isShown(own, 2)',
    instead: '',
  },
  'rotated: the grace': {
    file: revocation,
    text: "graceIsOver(about, own) ? 'rotated' : undefined",
    instead: "'rotated'",
  },
  'spare: two lists': {
    file: revocation,
    text: "isShown(token, 2) ? 'spare' : undefined",
    instead: "'spare'",
  },
  'nobody else acts under our identity': {
    file: orphans,
    text: '.filter(each => mayRevoke(each))',
    instead: '',
  },
  'a live read': {
    file: orphans,
    text: 'revocable(state, await readLive(state, namespace))',
    instead: `revocable(state, {
      name: namespace,
      known: state.index.namespaces.get(namespace),
      secret: state.index.secrets.get(namespace),
      exists: (await readLive(state, namespace)).exists,
    })`,
  },
  'no Secret of ours holds it': {
    file: orphans,
    text: ' || isHeld(state, namespace, token)',
    instead: '',
  },
  'this process leads': {
    file: orphans,
    text: '  assertLeading()\n',
    instead: '',
  },
  'a mark that is not ours is an alarm': {
    file: standing,
    text: 'if (foreign.length > 0) standing.foreign = foreign',
    instead: 'if (false) standing.foreign = foreign',
  },
  'our mark is missing: alarm': {
    file: identity,
    text: 'all.some(isMissing)',
    instead: 'false',
  },
  'our mark has stood alone': {
    file: identity,
    text: 'standing !== undefined && hasStoodAlone(standing, settings.listEveryMs)',
    instead: 'true',
  },
  'two lists show our mark alone': {
    file: standing,
    text: 'standing.alone < listsInARow',
    instead: 'standing.alone < 1',
  },
  'for longer than an interval': {
    file: standing,
    text: 'standing.listedAt - standing.settledAt >= 1.5 * listEveryMs',
    instead: 'true',
  },
  'delete: the token is of the namespace': {
    file: plan,
    text: "if (row?.namespace !== secret.namespace) return nothing('not_its_own')",
    instead: '',
  },
  'delete: nobody else acts under our identity': {
    file: plan,
    text: "step.do === 'delete' && !rules.mayRevoke",
    instead: 'false',
  },
  'delete: a live read of the namespace': {
    file: actions,
    text: 'if (await isOptedIn(task.namespace, context)) return',
    instead: '',
  },
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { seconds: { type: 'string', default: '60' }, only: { type: 'string' } },
  })
  const walk = new URL('random-walk.ts', import.meta.url).pathname
  for (const name of Object.keys(plantedFaults)) {
    if (values.only !== undefined && !name.includes(values.only)) continue
    const limits = ['--events', '1000000', '--seconds', values.seconds]
    const { stdout } = spawnSync(process.execPath, [walk, '--fault', name, ...limits], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    console.log(`| ${name} | ${stdout.split('\n')[0]} |`)
  }
}
