import { type App, at } from '../wire/request.ts'
import type { World } from '../world.ts'
import { notFound, refuse } from './cloud-error.ts'

/**
 * `GET api/v2/info` (info_controller.rb, with the values Bluemix had in 2018) and `GET api/`
 * (root_controller.rb), both without authentication. The authorization endpoint has a path and
 * is on another host than the token endpoint. Nulls are present, not left out.
 */
export function addDiscovery(app: App, world: World): void {
  for (const [path, answer] of [['/', root] as const, ['/v2/info', info] as const]) {
    const options = at(world.hosts.api, 'info', ({ method }, reply) =>
      method === 'GET' ? reply.send(answer(world)) : refuse(reply, false, notFound),
    )
    app.all(path, options)
  }
}

const fingerprint = 'f2:16:3d:5b:7d:5e:0f:2b:3c:9c:6b:0c:3e:9e:42:1a'

function loginUrl({ hosts }: World): string {
  return `https://${hosts.login}/UAALoginServerWAR`
}

function info(world: World) {
  const { hosts, settings } = world
  const domain = hosts.api.replace(/^api\./, '')
  const disabled = settings.v2Disabled
  return {
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
  }
}

/** With v2 off it is the root of today: `login` is there, `cloud_controller_v2` is not. */
function root(world: World) {
  const { hosts, settings } = world
  const api = `https://${hosts.api}`
  const link = (href: string) => ({ href })
  const v2 = { href: `${api}/v2`, meta: { version: '2.100.0' } }
  return {
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
  }
}
