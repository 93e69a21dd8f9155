import { pino } from 'pino'
import { Registry } from 'prom-client'
import t from 'tap'
import { mulberry32 } from '../../sandbox/bluemix/chance.ts'
import type { Credentials } from '../../src/bluemix/login/credentials.ts'
import { createLockoutGuard, type LockoutGuard } from '../../src/bluemix/login/lockout-guard.ts'
import type { Note } from '../../src/bluemix/login/login-record.ts'
import { TokenError } from '../../src/issuer/issuer.ts'
import {
  createSimulatedLogin,
  type LoginFault,
  minute,
  type SimulatedLogin,
} from './simulated-login.ts'

const signal = new AbortController().signal
const second = 1000

const keyFile = (apiKey: string): Credentials => ({ kind: 'api-key', apiKey, digest: apiKey })

interface Fixture {
  server: SimulatedLogin
  /** A process of its own; all share the note. `skewMs`: by how much its clock is ahead. */
  start(skewMs?: number): Process
  startWith(skewMs: () => number): Process
  note: Note & { text: string | undefined; isBroken: boolean }
  pass(ms: number): void
  now(): number
}

interface Process {
  guard: LockoutGuard
  /** `granted`, or the code of the error. */
  login(key: string): Promise<string>
  failure(key: string): Promise<TokenError>
}

/** The note as each process has it on the Lease: a text that it has not read is not overwritten. */
function versioned(note: Note): Note {
  let known: string | undefined
  return {
    read: async () => {
      known = await note.read()
      return known
    },
    write: async text => {
      if ((await note.read()) !== known) throw new Error('another process has changed the note')
      known = text
      await note.write(text)
    },
  }
}

/** Enough turns for a login to be sent. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve()
}

function setup(oneAccount = false): Fixture {
  let time = Date.parse('2026-11-27T12:00:00Z')
  const server = createSimulatedLogin(() => time, oneAccount)
  const note: Fixture['note'] = {
    text: undefined,
    isBroken: false,
    read: async () => note.text,
    write: async text => {
      if (note.isBroken) throw new Error('cannot annotate Lease pullpass/pullpass: HTTP 403')
      note.text = text
    },
  }
  const startWith = (skewMs: () => number): Process => {
    const startedAt = time
    const guard = createLockoutGuard(
      {
        server,
        note: versioned(note),
        logger: pino({ level: 'silent' }),
        metrics: new Registry(),
        now: () => time + skewMs(),
        elapsed: () => time - startedAt,
      },
      { loginServer: 'https://api.dedicated.example.com' },
    )
    const attempt = (key: string) => guard.login(keyFile(key), signal)
    return {
      guard,
      login: key =>
        attempt(key).then(
          () => 'granted',
          error => error.code,
        ),
      failure: async key => {
        const error = await attempt(key).then(
          () => undefined,
          failed => failed,
        )
        if (!(error instanceof TokenError)) throw new Error('no TokenError', { cause: error })
        return error
      },
    }
  }
  const pass = (ms: number) => {
    time += ms
  }
  const start = (skewMs = 0) => startWith(() => skewMs)
  return { server, start, startWith, note, pass, now: () => time }
}

t.test('a refused login is tried again after an hour, or with other credentials', async t => {
  const { server, start, pass } = setup()
  const { failure, login } = start()
  const first = await failure('wrong')
  t.match(first, { kind: 'locked', scope: 'environment', code: 'login_refused' })
  t.equal(
    first.message,
    'cannot log in: refused; next login at 2026-11-27T13:00:00Z, with other credentials at once',
  )
  t.equal(first.retryAfterMs, 60 * minute)
  for (let count = 0; count < 20; count++) t.equal(await login('wrong'), 'login_refused')
  t.equal(server.logins().length, 1)
  t.equal(await login('right'), 'granted')
  t.equal(await login('wrong'), 'login_refused', 'the files have changed')
  pass(59 * minute)
  await login('wrong')
  t.equal(server.logins().length, 3)
  pass(minute)
  await login('wrong')
  t.equal(server.logins().length, 4)
})

t.test('a refused login stays refused for other processes, with the same words', async t => {
  const { server, start } = setup()
  const { message } = await start().failure('wrong')
  for (let restart = 0; restart < 10; restart++) {
    t.match(await start().failure('wrong'), { kind: 'locked', code: 'login_refused', message })
  }
  t.equal(server.logins().length, 1)
  t.equal(await start().login('right'), 'granted')
})

t.test(
  'after three failed logins, the next one waits until the oldest is 20 minutes old',
  async t => {
    const { server, start, pass } = setup()
    for (const key of ['wrong-1', 'wrong-2', 'wrong-3']) {
      await start().login(key)
      pass(minute)
    }
    const error = await start().failure('right')
    t.match(error, { kind: 'transient', code: 'login_paused', retryAfterMs: 17 * minute })
    t.match(error.message, /three logins failed .* next login at 2026-11-27T12:20:00Z$/)
    const own = await start().failure('wrong-3')
    t.match(
      own.message,
      'next login at 2026-11-27T13:02:00Z, with other credentials at 2026-11-27T12:20:00Z',
    )
    pass(17 * minute - second)
    t.equal(await start().login('right'), 'login_paused')
    pass(second)
    t.equal(await start().login('right'), 'granted')
    t.equal(server.logins().length, 4)
  },
)

t.test(
  'a login without an answer is repeated only after the login server has answered',
  async t => {
    const faults = ['outage', 'lost'] as const
    for (const fault of faults) {
      const { server, start, pass } = setup()
      const { failure, login } = start()
      server.fault = { login: fault, probe: true }
      t.match(await failure('right'), { kind: 'transient', code: 'unavailable' })
      for (let seconds = 0; seconds < 120; seconds++) {
        const error = await failure('right')
        t.match(
          error.message,
          /next login when the login server answers, next check at 2026-11-27T/,
        )
        t.ok((error.retryAfterMs ?? 0) <= 30 * second)
        pass(second)
      }
      t.equal(server.logins().length, 1, fault)
      t.equal(server.probes(), 4, 'every 30 s')
      server.fault = {}
      pass(30 * second)
      t.equal(await login('right'), 'granted')
    }
  },
)

t.test('where only logins fail, three are tried within 20 minutes', async t => {
  const { server, start, pass } = setup()
  const { failure, login } = start()
  server.fault = { login: 'lost' }
  for (let seconds = 0; seconds < 1199; seconds++) {
    await login('wrong')
    pass(second)
  }
  t.equal(server.logins().length, 3)
  t.match(
    (await failure('wrong')).message,
    /next login at 2026-11-27T12:20:00Z if the login server answers then$/,
  )
  server.fault = {}
  pass(second)
  t.equal(await login('wrong'), 'login_refused')
})

t.test('a process that ends during a login counts, for the next one too', async t => {
  const { server, start, note, pass } = setup()
  for (let restart = 0; restart < 10; restart++) {
    server.fault = { login: 'never' }
    void start().login('wrong')
    await settled()
    pass(second)
  }
  t.equal(server.logins().length, 3)
  t.equal(JSON.parse(note.text ?? '').attempts.length, 3)
  server.fault = {}
  pass(20 * minute)
  t.equal(await start().login('right'), 'granted')
})

t.test(
  'a locked account is tried every 10 minutes, and the end of the lock is noticed',
  async t => {
    const { server, start, pass } = setup()
    server.lock('right')
    const { failure, login } = start()
    const error = await failure('right')
    t.match(error, { kind: 'locked', code: 'account_locked', retryAfterMs: 10 * minute })
    t.match(
      error.message,
      /locked; next login at 2026-11-27T12:10:00Z, with other credentials at once$/,
    )
    for (let seconds = 0; seconds < 599; seconds++) {
      pass(second)
      await login('right')
      t.equal(await start().login('right'), 'account_locked')
    }
    t.equal(server.logins().length, 1)
    pass(second)
    t.equal(await start().login('right'), 'granted')
  },
)

t.test('an answer "locked" does not count, and other credentials are tried at once', async t => {
  const { server, start, pass } = setup()
  server.lock('wrong')
  const { login } = start()
  for (const key of ['wrong-1', 'wrong-2', 'wrong-3', 'wrong-4', 'wrong-1', 'wrong-4']) {
    t.equal(await login(key), 'account_locked')
  }
  t.equal(server.logins().length, 4)
  pass(5 * minute)
  t.equal(await login('right'), 'granted')
})

t.test('no login is sent that cannot be recorded first', async t => {
  const { server, start, note } = setup()
  note.isBroken = true
  const { failure, login } = start()
  t.match(await failure('right'), {
    kind: 'transient',
    code: 'login_not_noted',
    message: /cannot annotate Lease/,
  })
  t.equal(server.logins().length, 0)
  note.isBroken = false
  t.equal(await login('right'), 'granted')
})

t.test('a login that was not sent does not count', async t => {
  const { server, start } = setup()
  const { login } = start()
  for (const fault of ['held_back', 'no_ca'] as const) {
    server.fault = { login: fault }
    for (let count = 0; count < 5; count++) await login('right')
  }
  server.fault = {}
  t.equal(await login('right'), 'granted')
  t.equal(server.probes(), 0)
})

t.test('an environment that is not found costs no login', async t => {
  const { server, start, note } = setup()
  const { login } = start()
  server.fault = { locate: true }
  for (let count = 0; count < 10; count++) t.equal(await login('right'), 'network')
  t.equal(note.text, undefined)
  server.fault = {}
  t.equal(await login('right'), 'granted')
})

t.test('a clock that was ahead delays logins by no more than the rule', async t => {
  const { server, start, note, pass, now } = setup()
  const year = 365 * 24 * 60 * minute
  for (const key of ['wrong-1', 'wrong-2', 'wrong-3']) await start(year).login(key)
  t.equal(await start().login('right'), 'login_paused')
  pass(10 * minute)
  t.equal(await start().login('right'), 'login_paused', 'a restart does not begin the wait anew')
  pass(10 * minute)
  t.equal(await start().login('right'), 'granted')
  t.equal(server.logins().length, 4)
  t.ok(JSON.parse(note.text ?? '').attempts.every((each: { at: number }) => each.at <= now()))
})

t.test('the note reveals nothing about the credentials, and nonsense in it is ignored', async t => {
  const { start, note } = setup()
  await start().login('wrong-0123456789abcdef')
  t.notMatch(note.text, /0123456789abcdef/)
  t.match(JSON.parse(note.text ?? '').attempts, [{ key: /^[0-9a-f]{4}$/ }])
  const nonsense = ['', 'null', '[]', '{}', 'x', '{"attempts":[null,{},7]}', '{"attempts":{}}']
  for (const text of nonsense) {
    note.text = text
    t.equal(await start().login('right'), 'granted')
  }
})

t.test('the note stays small, whatever happens', async t => {
  const { server, start, note, pass } = setup()
  server.lock('wrong')
  const { login } = start()
  for (let count = 0; count < 500; count++) {
    await login(`wrong-${count}`)
    pass(second)
  }
  t.ok((note.text ?? '').length < 2000, `${note.text?.length} characters`)
})

t.test('the problem of the credentials is known for as long as it lasts', async t => {
  const { start, pass } = setup()
  const { guard, failure } = start()
  t.equal(guard.problem('wrong'), undefined)
  const { message } = await failure('wrong')
  t.match(guard.problem('wrong'), { message })
  t.equal(guard.problem('right'), undefined)
  pass(60 * minute)
  t.equal(guard.problem('wrong'), undefined)
})

t.test('a clock that is set while pullpass runs changes nothing', async t => {
  const skews = [-3600_000, 3600_000, 400 * 24 * 3600_000]
  for (const skew of skews) {
    const { server, startWith, pass } = setup()
    let skewMs = 0
    const { login } = startWith(() => skewMs)
    for (const key of ['wrong-1', 'wrong-2', 'wrong-3']) await login(key)
    skewMs = skew
    pass(10 * minute)
    t.equal(await login('right'), 'login_paused')
    skewMs = 0
    pass(10 * minute - second)
    t.equal(await login('right'), 'login_paused')
    pass(second)
    t.equal(await login('right'), 'granted')
    t.equal(server.logins().length, 4)
  }
})

t.test('two processes that overwrite the note of each other keep the limit', async t => {
  const { server, start, note } = setup()
  const [one, other] = [start(), start()]
  await one.login('wrong-1')
  const former = note.text
  await other.login('wrong-2')
  note.text = former
  await other.login('wrong-3')
  t.equal(await other.login('wrong-4'), 'login_paused')
  t.equal(await one.login('wrong-4'), 'login_paused')
  t.equal(server.logins().length, 3)
})

t.test('of two processes that log in at the same time, each records its login', async t => {
  const { server, start, note } = setup()
  const keys = ['wrong-1', 'wrong-2']
  t.strictSame(await Promise.all(keys.map(key => start().login(key))), [
    'login_refused',
    'login_refused',
  ])
  t.equal(server.logins().length, 2)
  const { attempts } = JSON.parse(note.text ?? '') as { attempts: { outcome: string }[] }
  t.strictSame(
    attempts.map(({ outcome }) => outcome),
    ['refused', 'refused'],
  )
})

/*
 * Random histories: the key file changes, logins fail in each way, processes end and others take
 * over, somebody else locks the account. RUNS and SEED choose others.
 */
t.test(
  'in every history, at most three logins fail in 20 minutes, and a right key gets in',
  async t => {
    const { RUNS: runs = 4, SEED: first = 1 } = process.env
    let logins = 0
    for (let seed = Number(first); seed < Number(first) + Number(runs); seed++) {
      logins += await walk(seed)
    }
    t.comment(`${runs} histories of 6 hours from seed ${first} on, ${logins} logins`)
  },
)

const longestMs = 21 * minute
const faults: readonly LoginFault[] = [
  {},
  {},
  { login: 'lost' },
  { login: 'outage', probe: true },
  { login: 'lost', probe: true },
  { login: 'never' },
  { locate: true },
]

async function walk(seed: number): Promise<number> {
  const random = mulberry32(seed)
  const pick = <T>(from: readonly T[]) => from[Math.floor(random() * from.length)] as T
  const fixture = setup(random() < 0.5)
  const { server, start, pass, now } = fixture
  const history = { key: 'wrong-1', hasSession: false, leader: start(), quietSince: now() }
  const standby = start()
  const events = [
    () => Object.assign(history, { key: pick(['right', 'right', 'wrong-1', 'wrong-2']) }),
    () => Object.assign(server, { fault: pick(faults) }),
    () => server.lock(pick(['right', 'wrong'])),
    () => Object.assign(history, { leader: pick([start(), standby]) }),
  ]
  const often = random() * 0.1
  for (const end = now() + 360 * minute; now() < end; ) {
    pass(2000 + Math.floor(random() * 10_000))
    if (random() < often) {
      pick(events)()
      Object.assign(history, { hasSession: false, quietSince: now() })
    }
    if (!history.hasSession) await demand(history, start)
    check(fixture, history, seed)
  }
  return server.logins().length
}

interface History {
  key: string
  hasSession: boolean
  leader: Process
  /** The last event. */
  quietSince: number
}

async function demand(history: History, start: () => Process): Promise<void> {
  const login = history.leader.login(history.key)
  const outcome = await Promise.race([login, settled().then(() => 'no answer')])
  history.hasSession = outcome === 'granted'
  if (outcome === 'no answer') history.leader = start()
}

function check({ server, now }: Fixture, history: History, seed: number): void {
  const failed = server.logins().filter(isFailed)
  const recent = failed.filter(({ at }) => at > now() - 20 * minute)
  if (recent.length > 3) throw new Error(`seed ${seed}: ${recent.length} failed logins`)
  const canLogIn = history.key === 'right' && Object.keys(server.fault).length === 0
  const quietMs = now() - history.quietSince
  if (canLogIn && !history.hasSession && quietMs > longestMs) {
    throw new Error(`seed ${seed}: no login for ${quietMs} ms`)
  }
}

const isFailed = ({ outcome }: { outcome: string }) =>
  outcome === 'refused' || outcome === 'unanswered'
