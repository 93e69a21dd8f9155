import { ApiException } from '@kubernetes/client-node'
import t from 'tap'
import type { KubernetesClient } from '../../src/kubernetes/client.ts'
import { pullSecretManifest } from '../../src/pull-secret/pull-secret.ts'
import { createSecretStore } from '../../src/pull-secret/store.ts'

const rules = { secretName: 'pull', registryHost: 'registry.d.example.com' }
const text = 'the-credential'.repeat(10)
const manifest = pullSecretManifest(
  {
    namespace: 'shop',
    token: { text, id: 'x', expiresAt: undefined },
    organization: 'acme',
    mintedAt: new Date(0),
    previousTokenId: undefined,
    revokeAt: undefined,
  },
  rules,
)

interface Patch {
  body: { data: Record<string, string> }
  dryRun?: string
}

/** An API server that refuses a write in words that quote what was to be written. */
function setup(code: number, words: (sent: string) => string) {
  const sent: Patch[] = []
  const refuse = (quoted: string) => {
    const body = { kind: 'Status', code, reason: 'Any', message: words(quoted) }
    throw new ApiException(code, 'refused', JSON.stringify(body), {})
  }
  const core = {
    patchNamespacedSecret: async (patch: Patch) => {
      sent.push(patch)
      refuse(patch.body.data['.dockerconfigjson'] ?? '')
    },
    readNamespacedSecret: async () => {
      throw new ApiException(404, 'absent', '{"kind":"Status"}', {})
    },
    deleteNamespacedSecret: async () => refuse(Buffer.from(text).toString('base64')),
  }
  const store = createSecretStore({ core } as unknown as KubernetesClient, 'pull')
  return { sent, store }
}

t.test('a write that is refused gives the words, asked without the credential', async t => {
  const { sent, store } = setup(403, quoted => `secrets "pull" is forbidden: policy: ${quoted}`)
  await t.rejects(store.apply(manifest, undefined), {
    status: 403,
    message: /^refused: policy: eyJhdXRocyI6e319$/,
  })
  t.strictSame(
    sent.map(({ dryRun }) => dryRun),
    [undefined, 'All'],
  )
})

t.test('a webhook that fails is named', async t => {
  const { store } = setup(500, () => 'failed calling webhook "check.example.com": no endpoints')
  await t.rejects(store.apply(manifest, undefined), {
    message:
      'cannot apply Secret shop/pull: HTTP 500 Any: failed calling webhook "check.example.com": no endpoints',
  })
})

t.test(
  'a removal that is refused gives the words, without what looks like a credential',
  async t => {
    const { store } = setup(403, quoted => `secrets "pull" is forbidden: keep ${quoted}`)
    const secret = { namespace: 'shop', uid: 'u', resourceVersion: '1' }
    await t.rejects(store.remove(secret as Parameters<typeof store.remove>[0]), {
      message: 'refused: keep [redacted]',
    })
  },
)
