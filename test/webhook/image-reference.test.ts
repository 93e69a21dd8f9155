import t from 'tap'
import { isFromRegistry, parseReference } from '../../src/webhook/image-reference.ts'

const HEX_64 = '0123456789abcdef'.repeat(4)
const SHA256 = `sha256:${HEX_64}`
const SHA512 = `sha512:${HEX_64}${HEX_64}`
const LONG_TAG = 't'.repeat(128)
const LONG_REPOSITORY = `${'a/'.repeat(127)}a`

type Row = [
  image: string,
  registry: string,
  repository: string,
  tag?: string | undefined,
  digest?: string | undefined,
]

const REFERENCES: Row[] = [
  ['nginx', 'docker.io', 'library/nginx'],
  ['nginx:1.27', 'docker.io', 'library/nginx', '1.27'],
  [`nginx@${SHA256}`, 'docker.io', 'library/nginx', undefined, SHA256],
  ['acme/web', 'docker.io', 'acme/web'],
  ['docker.io/nginx', 'docker.io', 'library/nginx'],
  ['docker.io/acme/web:1', 'docker.io', 'acme/web', '1'],
  ['index.docker.io/nginx', 'docker.io', 'library/nginx'],
  ['index.docker.io/acme/web', 'docker.io', 'acme/web'],
  // A single component is never a registry, whatever it looks like.
  ['registry.example.com', 'docker.io', 'library/registry.example.com'],
  ['myhost:5000', 'docker.io', 'library/myhost', '5000'],
  // The first of several is one by '.', ':', an upper-case letter, or as localhost.
  ['registry.d.example.com/ns/img', 'registry.d.example.com', 'ns/img'],
  ['registry.d.example.com/img:v1', 'registry.d.example.com', 'img', 'v1'],
  ['registry.d.example.com:5000/ns/img', 'registry.d.example.com:5000', 'ns/img'],
  ['myhost:5000/img', 'myhost:5000', 'img'],
  ['myhost/img', 'docker.io', 'myhost/img'],
  ['Myhost/img', 'Myhost', 'img'],
  ['REGISTRY.D.example.com/ns/img:V1', 'REGISTRY.D.example.com', 'ns/img', 'V1'],
  ['localhost/img', 'localhost', 'img'],
  ['localhost:5000/img', 'localhost:5000', 'img'],
  ['127.0.0.1:5000/img', '127.0.0.1:5000', 'img'],
  ['[::1]/img', '[::1]', 'img'],
  ['[2001:db8::1]:5000/ns/img:1', '[2001:db8::1]:5000', 'ns/img', '1'],
  ['a--b.example.com/img', 'a--b.example.com', 'img'],
  ['my_host.io/img', 'my_host.io', 'img'],
  ['reg.io/a/b/c/d', 'reg.io', 'a/b/c/d'],
  ['reg.io/a.b_c__d---e', 'reg.io', 'a.b_c__d---e'],
  ['reg.io/img:_x.Y-1', 'reg.io', 'img', '_x.Y-1'],
  [`reg.io/img:${LONG_TAG}`, 'reg.io', 'img', LONG_TAG],
  [`reg.io/img:1@${SHA256}`, 'reg.io', 'img', '1', SHA256],
  [`reg.io/img@${SHA512}`, 'reg.io', 'img', undefined, SHA512],
  [`reg.io/${LONG_REPOSITORY}`, 'reg.io', LONG_REPOSITORY],
  [`reg.io/${HEX_64}`, 'reg.io', HEX_64],
  [`${HEX_64}:1`, 'docker.io', `library/${HEX_64}`, '1'],
]

t.test('an image reference is read as the kubelet reads it', async t => {
  for (const [image, registry, repository, tag, digest] of REFERENCES) {
    t.strictSame(parseReference(image), { registry, repository, tag, digest }, image)
  }
})

const NO_REFERENCES = [
  '',
  '/',
  '/img',
  'img/',
  'reg.io/',
  'reg.io//img',
  'reg.io/ns//img',
  'reg.io/Ns/img',
  'reg.io/img:',
  'reg.io/img:-x',
  'reg.io/img:a:b',
  `reg.io/img:${LONG_TAG}t`,
  'reg.io/img@',
  'reg.io/img@sha256:abc',
  `reg.io/img@${SHA256}0`,
  `reg.io/img@${SHA256.toUpperCase()}`,
  `reg.io/img@md5:${'0'.repeat(32)}`,
  `reg.io/img@${SHA256}:1`,
  'reg.io/.img',
  'reg.io/img.',
  'reg.io/a..b',
  'reg.io/a___b',
  'reg.io:/img',
  'reg.io:http/img',
  'reg.io./img',
  '.reg.io/img',
  '-reg.io/img',
  'reg-.io/img',
  '::1/img',
  '[fe80::1%eth0]/img',
  'https://reg.io/img',
  'Img',
  ' reg.io/img',
  'reg.io/img ',
  'reg.io/img\n',
  'reg.io/imgé',
  'İ.io/img',
  HEX_64,
  `reg.io/${LONG_REPOSITORY}a`,
]

t.test('a text that the kubelet refuses is not an image reference', async t => {
  for (const image of NO_REFERENCES) t.equal(parseReference(image), undefined, image)
})

const OURS = 'registry.d.example.com'
const KEYRING: [image: string, registryHost: string, matches: boolean][] = [
  ['registry.d.example.com/ns/img', OURS, true],
  ['registry.d.example.com/img', OURS, true],
  ['registry.d.example.com/ns/img:v1', OURS, true],
  [`registry.d.example.com/ns/img@${SHA256}`, OURS, true],
  ['registry.d.example.com:5000/ns/img', OURS, false],
  ['registry.d.example.com:443/ns/img', OURS, false],
  ['registry.d.example.com/ns/img', `${OURS}:443`, false],
  ['registry.d.example.com:443/ns/img', `${OURS}:443`, true],
  ['registry.d.example.com:0443/ns/img', `${OURS}:443`, false],
  ['Registry.d.example.com/ns/img', OURS, false],
  ['registry.d.example.com/ns/img', 'Registry.d.example.com', false],
  ['registry.d.example.com.evil.io/ns/img', OURS, false],
  ['registry.d.example.comevil/ns/img', OURS, false],
  ['evil.registry.d.example.com/ns/img', OURS, false],
  ['evil.io/registry.d.example.com/img', OURS, false],
  ['evil/registry.d.example.com/img', OURS, false],
  ['https://registry.d.example.com/ns/img', OURS, false],
  ['registry.d.example.com', OURS, false],
  ['registry.d.example.com:v1', OURS, false],
  ['registry.d.example.com/', OURS, false],
  ['registry.d.example.com/Ns/img', OURS, false],
  ['registry.d.example.com@evil.io/img', OURS, false],
  ['registryxd.example.com/ns/img', OURS, false],
  ['nginx', OURS, false],
  ['nginx', 'docker.io', true],
]

t.test('an image belongs to a registry if host, port and case are equal', async t => {
  for (const [image, host, matches] of KEYRING) {
    t.equal(isFromRegistry(image, host), matches, `${image} of ${host}`)
  }
})

t.test('a hostile text of 1 MB takes almost no time', async t => {
  const began = performance.now()
  for (const part of ['a', 'a-', 'a.', 'a/', 'a_', ':', '@', '-', 'A', '[:']) {
    const text = part.repeat(1_000_000 / part.length)
    const longest = text.slice(0, 1000)
    for (const image of [
      text,
      `${text}/img`,
      `reg.io/${text}`,
      `${longest}!`,
      `r.io/${longest}!`,
    ]) {
      t.equal(parseReference(image), undefined)
    }
  }
  t.ok(performance.now() - began < 1000, 'all of them in less than a second')
})
