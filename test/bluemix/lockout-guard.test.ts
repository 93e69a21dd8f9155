import t from 'tap'
import { createLoginMemory, type Note } from '../../src/bluemix/login/lockout-guard.ts'
import { TokenError } from '../../src/issuer/issuer.ts'

const refused = new TokenError('the login was refused', {
  kind: 'locked',
  scope: 'environment',
  code: 'login_refused',
})
const failed = (code: string) =>
  new TokenError(code, { kind: 'transient', scope: 'environment', code })

/** A guard for each process; all share the record and the clock. */
function setup() {
  let kept: string | undefined
  let time = 1_800_000_000_000
  const note: Note = {
    read: async () => kept,
    write: async text => {
      kept = text
    },
  }
  return {
    note,
    kept: () => kept ?? '',
    forget: () => {
      kept = undefined
    },
    advance: (ms: number) => {
      time += ms
    },
    process: () => createLoginMemory(note, () => time),
  }
}

t.test('the next process does not repeat a refused login', async t => {
  const { process } = setup()
  const first = process()
  await first.enter('wrong')
  await first.leave('wrong', refused)
  for (let restart = 0; restart < 10; restart++) {
    await t.rejects(process().enter('wrong'), {
      name: 'TokenError',
      kind: 'locked',
      code: 'login_refused',
      message: 'the login was refused',
    })
  }
})

t.test('a new credential is tried at once, whatever was recorded before', async t => {
  const { process } = setup()
  await process().enter('wrong')
  await process().leave('wrong', refused)
  await t.resolves(process().enter('right'))
  await process().leave('right')
  await t.resolves(process().enter('right'))
})

t.test('processes that are killed during a login do not lock the account', async t => {
  const { process, advance } = setup()
  for (let restart = 0; restart < 3; restart++) await process().enter('wrong')
  await t.rejects(process().enter('wrong'), { kind: 'transient', code: 'login_paused' })
  advance(601_000)
  await process().enter('wrong')
  await t.rejects(process().enter('wrong'), { code: 'login_paused' }, 'one in ten minutes')
})

t.test('logins are not counted while the environment is unavailable', async t => {
  const { process } = setup()
  for (let tries = 0; tries < 10; tries++) {
    await process().enter('right')
    await process().leave('right', failed('unavailable'))
  }
  await t.resolves(process().enter('right'))
})

t.test('no login is sent if it cannot be recorded first', async t => {
  const { note, process } = setup()
  note.write = async () => {
    throw new Error('cannot annotate Lease pullpass/pullpass: HTTP 403 Forbidden')
  }
  await t.rejects(process().enter('right'), {
    kind: 'transient',
    code: 'login_not_noted',
    message: /cannot annotate Lease/,
  })
})

t.test('the record does not reveal the credential, and a damaged record is ignored', async t => {
  const { kept, note, process } = setup()
  await process().enter('0123456789abcdef-digest')
  t.notMatch(kept(), /0123456789/)
  t.match(JSON.parse(kept()).credentials, /^[0-9a-f]{4}$/)
  for (const nonsense of ['', 'null', '[]', '{}', 'x', '{"unanswered":"9"}']) {
    await note.write(nonsense)
    await process().enter('right')
  }
})
