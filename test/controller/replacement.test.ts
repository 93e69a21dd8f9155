import t from 'tap'
import { createReplacements } from '../../src/controller/replacement.ts'

/** What the registry answers, by hash of the token. */
function setup() {
  const answers = new Map<string, boolean>()
  const replacements = createReplacements({
    isRefused: hash => hash !== undefined && answers.get(hash) === false,
    isAccepted: hash => answers.get(hash) === true,
  })
  const dead = (count: number) => {
    for (let n = 0; n < count; n++) replacements.observe('acme', `ns-${n}`, 'dead')
  }
  return { answers, replacements, dead }
}

t.test('up to ten dead tokens are replaced at once', async t => {
  const { replacements, dead } = setup()
  dead(10)
  for (let n = 0; n < 10; n++) t.ok(replacements.mayReplace('acme', `ns-${n}`))
})

t.test(
  'of more, the others wait until the registry accepts the new token of the first',
  async t => {
    const { answers, replacements, dead } = setup()
    dead(11)
    t.ok(replacements.mayReplace('acme', 'ns-0'))
    replacements.replaced('acme', 'ns-0', 'new')
    t.notOk(replacements.mayReplace('acme', 'ns-1'))
    answers.set('new', true)
    replacements.observe('acme', 'ns-0', 'in_use')
    t.ok(replacements.mayReplace('acme', 'ns-1'))
  },
)

t.test('nothing is minted while the registry refuses a new token', async t => {
  const { answers, replacements, dead } = setup()
  dead(2)
  t.ok(replacements.mayReplace('acme', 'ns-0'))
  replacements.replaced('acme', 'ns-0', 'new')
  answers.set('new', false)
  replacements.observe('acme', 'ns-0', 'refused')
  t.notOk(replacements.mayReplace('acme', 'ns-1'))
  t.match(replacements.problem('acme'), { code: 'credential_refused', organization: 'acme' })
})

t.test('a new token that was accepted and is refused later is replaced', async t => {
  const { answers, replacements, dead } = setup()
  dead(1)
  replacements.replaced('acme', 'ns-0', 'new')
  answers.set('new', true)
  replacements.observe('acme', 'ns-0', 'in_use')
  answers.set('new', false)
  replacements.observe('acme', 'ns-0', 'refused')
  t.equal(replacements.problem('acme'), undefined)
  t.ok(replacements.mayReplace('acme', 'ns-0'))
})
