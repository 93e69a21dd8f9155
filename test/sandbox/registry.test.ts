import t from 'tap'
import { pullImage, pushTestImage, startRegistry } from '../../sandbox/registry.ts'
import { startCaller } from './bluemix-caller.ts'

t.test('an image can be pulled only with a registry token of its organization', async t => {
  const { environment, mint } = await startCaller(t)
  const registry = await startRegistry(environment.registryAuth)
  t.teardown(() => registry.stop())
  environment.setRegistryUpstream(registry.url)
  const host = environment.hosts.registry
  const pushToken = await mint('?permanent=true&write=true')
  const pullToken = await mint('?permanent=true')
  const image = `${host}/acme/hello:1`

  const credential = { username: 'token', password: pushToken }
  const digest = await pushTestImage(image, credential, environment)
  t.match(digest, /^sha256:[0-9a-f]{64}$/)
  // Another image: one that is there already need not be pushed.
  await t.rejects(
    pushTestImage(`${host}/acme/hello:2`, { username: 'token', password: pullToken }, environment),
    /^cannot push .*UNAUTHORIZED/s,
  )

  const secret = (password: string) => {
    const auth = Buffer.from(`token:${password}`).toString('base64')
    return JSON.stringify({ auths: { [host]: { username: 'token', password, auth } } })
  }
  t.same(await pullImage(image, secret(pullToken), environment), { ok: true, output: '', digest })
  t.match(await pullImage(image, secret('wrong'), environment), {
    ok: false,
    output: 'The login credentials are not valid',
  })
  t.match(await pullImage(image, undefined, environment), { ok: false, output: 'UNAUTHORIZED' })
})
