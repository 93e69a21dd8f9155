import { type Answer, type Handler, json } from '../wire/exchange.ts'
import type { World } from '../world.ts'

/**
 * `GET api/v2/info` (info_controller.rb, with the values Bluemix had in 2018) and `GET api/`
 * (root_controller.rb), both without authentication. The authorization endpoint has a path and
 * is on another host than the token endpoint. Nulls are present, not left out.
 */
export function createDiscovery(world: World): Handler {
  return received => {
    if (received.method !== 'GET') return json(404, unknownRequest)
    return received.path === '/' ? root(world) : info(world)
  }
}

const unknownRequest = { description: 'Unknown request', error_code: 'CF-NotFound', code: 10000 }
const fingerprint = 'f2:16:3d:5b:7d:5e:0f:2b:3c:9c:6b:0c:3e:9e:42:1a'

function loginUrl({ hosts }: World): string {
  return `https://${hosts.login}/UAALoginServerWAR`
}

function info(world: World): Answer {
  const { hosts, settings } = world
  const domain = hosts.api.replace(/^api\./, '')
  const disabled = settings.v2Disabled
  return json(200, {
    name: 'Bluemix',
    build: '270030',
    support: disabled ? 'CF API v2 is disabled' : 'http://ibm.biz/bluemix-supportinfo',
    version: 0,
    description: 'IBM Bluemix',
    authorization_endpoint: loginUrl(world),
    token_endpoint: `https://${hosts.uaa}`,
    min_cli_version: null,
    min_recommended_cli_version: null,
    api_version: disabled ? '' : '2.100.0',
    app_ssh_endpoint: `ssh.${domain}:2222`,
    app_ssh_host_key_fingerprint: fingerprint,
    app_ssh_oauth_client: 'ssh-proxy',
    doppler_logging_endpoint: `wss://doppler.${domain}:443`,
    allow_debug: true,
  })
}

/** With v2 off it is the root of today: `login` is there, `cloud_controller_v2` is not. */
function root(world: World): Answer {
  const { hosts, settings } = world
  const api = `https://${hosts.api}`
  const link = (href: string) => ({ href })
  const v2 = { href: `${api}/v2`, meta: { version: '2.100.0' } }
  return json(200, {
    links: {
      self: link(api),
      ...(settings.v2Disabled ? {} : { cloud_controller_v2: v2 }),
      cloud_controller_v3: { href: `${api}/v3`, meta: { version: '3.35.0' } },
      network_policy_v0: link(`${api}/networking/v0/external`),
      network_policy_v1: link(`${api}/networking/v1/external`),
      ...(settings.v2Disabled ? { login: link(loginUrl(world)) } : {}),
      uaa: link(`https://${hosts.uaa}`),
      credhub: null,
      routing: null,
      app_ssh: {
        href: `ssh.${hosts.api}:2222`,
        meta: { host_key_fingerprint: fingerprint, oauth_client: 'ssh-proxy' },
      },
    },
  })
}
