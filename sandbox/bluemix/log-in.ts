import { ProxyAgent, request } from 'undici'
import type { BluemixEnvironment } from './environment.ts'

/**
 * Logs in with a password and resolves with the UAA token. With it as password of the user `bearer`,
 * clients can push to the registry. The ledger counts this login too.
 */
export async function logIn(environment: BluemixEnvironment): Promise<string> {
  const { gateway, ca, hosts, user } = environment
  const dispatcher = new ProxyAgent({ uri: gateway, requestTls: { ca } })
  try {
    const { name: username, password } = user
    const form = { grant_type: 'password', username, password, scope: '' }
    const response = await request(`https://${hosts.login}/UAALoginServerWAR/oauth/token`, {
      dispatcher,
      method: 'POST',
      headers: {
        authorization: `Basic ${Buffer.from('cf:').toString('base64')}`,
        'content-type': 'application/x-www-form-urlencoded',
      },
      body: new URLSearchParams(form).toString(),
    })
    const { access_token } = (await response.body.json()) as { access_token: string }
    return access_token
  } finally {
    await dispatcher.close()
  }
}
