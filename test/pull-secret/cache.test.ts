import t from 'tap'
import { neverServedWith } from '../../src/names.ts'
import { createPullSecretIndex } from '../../src/pull-secret/cache.ts'

const rules = { secretName: 'pullpass-registry', registryHost: 'registry.d.example.com' }

t.test('a ServiceAccount enforces with every spelling that Go reads as true', async t => {
  const allowed = (value: string | undefined, secrets: string[]) => {
    const index = createPullSecretIndex(rules)
    const annotations =
      value === undefined ? {} : { 'kubernetes.io/enforce-mountable-secrets': value }
    index.serviceAccounts.upsert({
      metadata: { namespace: 'shop', name: 'ci', resourceVersion: '1', annotations },
      imagePullSecrets: secrets.map(name => ({ name })),
    })
    return index.serviceAccounts.get('shop/ci')
  }
  for (const value of ['1', 't', 'T', 'true', 'True', 'TRUE']) {
    t.strictSame(allowed(value, ['other']), [], `${value}, not listing ours: one bit is kept`)
    t.equal(allowed(value, ['other', rules.secretName]), undefined, `${value}, listing ours`)
  }
  for (const value of ['0', 'f', 'false', 'tRUE', 'yes', '', ' true', undefined]) {
    t.equal(allowed(value, []), undefined, `${value}`)
  }
})

t.test('only enabled and true opt a namespace in, and no system namespace', async t => {
  const index = createPullSecretIndex(rules, neverServedWith('pullpass'))
  const changes: string[] = []
  index.onChange(name => changes.push(name))
  const label = (name: string, value: string) => {
    const metadata = { name, resourceVersion: '1', labels: { 'pullpass.io/inject': value } }
    index.namespaces.upsert({ metadata })
    return index.readNamespace({ metadata })
  }
  const rows: [name: string, value: string, optedIn: boolean, problem: RegExp | undefined][] = [
    ['shop', 'enabled', true, undefined],
    ['bakery', 'true', true, undefined],
    ['yes', 'yes', false, /has the value "yes"/],
    ['off', 'disabled', false, /has the value "disabled"/],
    ['empty', '', false, /has the value ""/],
    ['kube-system', 'enabled', false, /no effect here/],
    ['kube-node-lease', 'true', false, /no effect here/],
    ['pullpass', 'enabled', false, /no effect here/],
  ]
  for (const [name, value, optedIn, problem] of rows) {
    const live = label(name, value)
    t.equal(live !== undefined, optedIn, `${name} ${value}, read live`)
    t.equal(index.namespaces.get(name) !== undefined, optedIn, `${name} ${value}, in the cache`)
    if (problem === undefined) t.equal(index.labelProblem(name), undefined)
    else t.match(index.labelProblem(name), problem)
  }
  t.strictSame([...index.namespaces.keys()], ['shop', 'bakery'])
  t.equal([...index.mislabelled()].length, 6)
  t.equal(changes.length, rows.length)
})

t.test('long annotations of a Secret or a namespace are not kept in memory', async t => {
  const index = createPullSecretIndex(rules)
  const long = 'x'.repeat(200_000)
  index.secrets.upsert({
    metadata: {
      ...{ namespace: 'shop', resourceVersion: '1' },
      annotations: { 'pullpass.io/organization': long, 'pullpass.io/token-id': long },
    },
  })
  t.match(index.secrets.get('shop'), { organization: undefined, tokenId: undefined })
  index.namespaces.upsert({
    metadata: {
      ...{ name: 'shop', resourceVersion: '1', labels: { 'pullpass.io/inject': 'enabled' } },
      annotations: { 'pullpass.io/organization': long },
    },
  })
  t.equal(index.namespaces.get('shop')?.organization?.length, 1000)
})
