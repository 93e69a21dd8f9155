import type { Steps } from './steps.ts'

export const image = 'registry.dedicated.example.com/acme/hello:1'

/** The demo of one pull secret, for each way to run pullpass; rejects if a statement does not hold. */
export async function runScenario(steps: Steps): Promise<void> {
  await steps.pushImage()
  await beforeAndAfter(steps)
  await pull(steps)
  await whatDoesNotHappen(steps)
}

async function beforeAndAfter(steps: Steps): Promise<void> {
  steps.heading('A namespace is labelled, and a pod is created in it')
  await steps.kubectl('create namespace shop')
  await steps.kubectl('label namespace shop pullpass.io/inject=enabled')
  await steps.show('examples/mypod.yaml')
  await steps.kubectl('apply -n shop -f examples/mypod.yaml')
  const named = await steps.kubectl('get pod mypod -n shop -o jsonpath={.spec.imagePullSecrets}')
  steps.expect(named === '[{"name":"pullpass-registry"}]', 'the pod names the pull secret')
  await steps.showSecret('shop')
  steps.expect(steps.mints().length === 1, `one token was minted: ${steps.mints()}`)
}

async function pull(steps: Steps): Promise<void> {
  steps.heading('The image is pulled from the registry with the credential in that Secret')
  const pulled = await steps.pull('shop')
  steps.expect(pulled.ok, `pulled ${pulled.digest}`)
  const refused = await steps.pull(undefined)
  // Without the address, which is long.
  const words = refused.output
    .split('\n')
    .at(-1)
    ?.replace(/GET \S+: /, '')
  steps.expect(!refused.ok, `without the credential, the pull is refused: ${words}`)
}

async function whatDoesNotHappen(steps: Steps): Promise<void> {
  steps.heading('What pullpass does not change')
  await steps.kubectl(`run second -n shop --image=${image}`)
  await steps.kubectl('apply -n shop -f examples/web.yaml')
  const inShop = await steps.references('shop', 4)
  const once = [...inShop.values()].every(count => count === 1)
  steps.expect(once, `each of ${[...inShop.keys()].join(', ')} names the Secret once`)
  steps.expect(steps.mints().length === 1, 'no other token was minted')
  const template = await steps.kubectl(
    'get deployment web -n shop -o jsonpath={.spec.template.spec.imagePullSecrets}',
  )
  steps.expect(template === '', 'the Deployment is unchanged')
  await steps.kubectl('create namespace elsewhere')
  await steps.kubectl('label namespace elsewhere pullpass.io/inject=enabled')
  await steps.kubectl('apply -n elsewhere -f examples/elsewhere.yaml')
  const elsewhere = await steps.references('elsewhere', 1)
  steps.expect(
    elsewhere.get('elsewhere') === 0,
    'a pod with an image of another registry is not changed',
  )
  await steps.kubectl('create namespace quiet')
  await steps.kubectl('apply -n quiet -f examples/mypod.yaml')
  const quiet = await steps.references('quiet', 1)
  steps.expect(quiet.get('mypod') === 0, 'in a namespace without the label, the pod is not changed')
  const secrets = await steps.kubectl('get secrets -n quiet -o name')
  steps.expect(secrets === '', 'this namespace has no Secret and no token')
}
