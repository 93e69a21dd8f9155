import type { Scene } from './scene.ts'

export const image = 'registry.dedicated.example.com/acme/hello:1'

/** The demo of one pull secret, for each way to run pullpass; rejects if a statement does not hold. */
export async function tellStory(scene: Scene): Promise<void> {
  await scene.pushImage()
  await beforeAndAfter(scene)
  await pull(scene)
  await whatDoesNotHappen(scene)
}

async function beforeAndAfter(scene: Scene): Promise<void> {
  scene.chapter('A namespace is labelled, and a pod is created in it')
  await scene.kubectl('create namespace shop')
  await scene.kubectl('label namespace shop pullpass.io/inject=enabled')
  await scene.show('examples/mypod.yaml')
  await scene.kubectl('apply -n shop -f examples/mypod.yaml')
  const named = await scene.kubectl('get pod mypod -n shop -o jsonpath={.spec.imagePullSecrets}')
  scene.expect(named === '[{"name":"pullpass-registry"}]', 'the pod names the pull secret')
  await scene.showSecret('shop')
  scene.expect(scene.mints().length === 1, `one token was minted: ${scene.mints()}`)
}

async function pull(scene: Scene): Promise<void> {
  scene.chapter('The image is pulled from the registry with the credential in that Secret')
  const pulled = await scene.pull('shop')
  scene.expect(pulled.ok, `pulled ${pulled.digest}`)
  const refused = await scene.pull(undefined)
  const words = refused.output.split('\n').at(-1)?.slice(0, 200)
  scene.expect(!refused.ok, `and refused without it: ${words}`)
}

async function whatDoesNotHappen(scene: Scene): Promise<void> {
  scene.chapter('What pullpass does not change')
  await scene.kubectl(`run second -n shop --image=${image}`)
  await scene.kubectl('apply -n shop -f examples/web.yaml')
  const inShop = await scene.references('shop', 4)
  const once = [...inShop.values()].every(count => count === 1)
  scene.expect(once, `each of ${[...inShop.keys()].join(', ')} names the Secret once`)
  scene.expect(scene.mints().length === 1, 'no further token was minted')
  const template = await scene.kubectl(
    'get deployment web -n shop -o jsonpath={.spec.template.spec.imagePullSecrets}',
  )
  scene.expect(template === '', 'the Deployment is unchanged')
  await scene.kubectl('create namespace elsewhere')
  await scene.kubectl('label namespace elsewhere pullpass.io/inject=enabled')
  await scene.kubectl('apply -n elsewhere -f examples/elsewhere.yaml')
  const elsewhere = await scene.references('elsewhere', 1)
  scene.expect(
    elsewhere.get('elsewhere') === 0,
    'a pod with an image of another registry is not changed',
  )
  await scene.kubectl('create namespace quiet')
  await scene.kubectl('apply -n quiet -f examples/mypod.yaml')
  const quiet = await scene.references('quiet', 1)
  scene.expect(quiet.get('mypod') === 0, 'in a namespace without the label, the pod is not changed')
  const secrets = await scene.kubectl('get secrets -n quiet -o name')
  scene.expect(secrets === '', 'and that namespace has neither Secret nor token')
}
