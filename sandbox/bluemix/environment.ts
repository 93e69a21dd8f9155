import { startComponents } from '../components.ts'
import { createCertificates, writeCertificates } from './certificates.ts'
import type { ClockControl } from './clock.ts'
import { addCloudController } from './cloud-controller/cloud-controller.ts'
import { addDiscovery } from './cloud-controller/discovery.ts'
import type { Organization, OrganizationInput, User, UserInput } from './directory.ts'
import { createFaults, type FaultSwitches } from './faults.ts'
import { createHooks, type EventName, type Listener } from './hooks.ts'
import type { LedgerView } from './ledger.ts'
import { addIam } from './login/iam.ts'
import { addUaa } from './login/uaa.ts'
import { addRegistryAuth } from './registry/registry-auth.ts'
import { createRegistryProxy } from './registry/registry-proxy.ts'
import { createRegistryTokens } from './registry/registry-tokens.ts'
import { addTokenApi } from './registry/token-api.ts'
import type { Settings } from './settings.ts'
import { openFrontDoor } from './wire/front-door.ts'
import { openGateway } from './wire/gateway.ts'
import { createWorld, type Hosts, type World } from './world.ts'

/** A Bluemix Dedicated environment on this machine: log in, look up, mint, list, revoke, pull. */
export interface BluemixEnvironment {
  readonly domain: string
  /** `api.<domain>`, `login.<domain>`, ...: all speak HTTPS on port 443, through the gateway. */
  readonly hosts: Hosts
  /** An HTTP CONNECT proxy (`http://127.0.0.1:PORT`) that resolves `hosts`. */
  readonly gateway: string
  /** The private CA of the environment's TLS: PEM text, and the same as a file. */
  readonly ca: string
  readonly caFile: string
  /** What a distribution registry needs in `auth.token`; `rootCertificateFile` is its bundle. */
  readonly registryAuth: {
    realm: string
    service: string
    issuer: string
    rootCertificate: string
    rootCertificateFile: string
  }
  /** The default user: member of `acme`, `acme-shop` and of the organizations with odd names. */
  readonly user: User
  /** Its current API key. */
  readonly apiKey: string
  /** Another user, the only member of the organization `hidden`. */
  readonly stranger: User
  addUser(input: UserInput): User
  addOrganization(input: OrganizationInput): Organization
  /** Tokens of somebody else: one permanent token for each description, without any request. */
  addTokens(organization: string, descriptions: string[]): void
  /** Changes the description of a token, without any request. The ledger keeps the first one. */
  describeToken(id: string, description: string): void
  /** By exact name; throws where there is none. */
  organization(name: string): Organization
  /** Behaviour that is normal for some environments (see settings.ts); change it at any time. */
  readonly settings: Settings
  readonly clock: ClockControl
  readonly faults: FaultSwitches
  readonly ledger: LedgerView
  /** Makes the access tokens issued so far expire, for the registry or everywhere. */
  expireAccessTokens(where: 'registry' | 'everywhere'): void
  /** Refuses all refresh tokens issued so far, by UAA and by IAM. */
  revokeRefreshTokens(): void
  /** Adds a listener; returns a function that removes it. hooks.ts describes the events. */
  on(event: EventName, listener: Listener): () => void
  /** Target of `/v2/*` of the registry host, `http://127.0.0.1:PORT`; without one: 401 or 200. */
  setRegistryUpstream(url: string | undefined): void
  /** Every secret text ever issued or accepted; for the leak scan. */
  issued(): string[]
  stop(): Promise<void>
}

export interface BluemixOptions {
  /** Default `dedicated.example.com`. */
  domain?: string
  registryUpstream?: string
}

/**
 * Starts everything on free ports of 127.0.0.1; `stop()` ends it and removes its files. If one of
 * them cannot be started, nothing is left of the others.
 */
export async function startBluemixEnvironment(
  options: BluemixOptions = {},
): Promise<BluemixEnvironment> {
  const { world, user, stranger } = createWorld(options.domain ?? 'dedicated.example.com')
  const certificates = await createCertificates(Object.values(world.hosts))
  return startComponents(async ({ begun, folder, stop }) => {
    const files = await writeCertificates(await folder('bluemix'), certificates)
    const proxy = createRegistryProxy(world, certificates.tokenSigner.cert)
    await begun(Promise.resolve(proxy))
    proxy.setUpstream(options.registryUpstream)
    const faults = createFaults()
    const hooks = createHooks()
    const tokens = createRegistryTokens(world.hosts.registry, world.settings)
    const { accept, reset } = await begun(
      openFrontDoor({ world, faults, hooks }, certificates.tls, app => {
        addDiscovery(app, world)
        addCloudController(app, world)
        addUaa(app, world)
        addIam(app, world)
        addTokenApi(app, world, tokens)
        addRegistryAuth(app, world, { tokens, signer: certificates.tokenSigner })
        proxy.addTo(app)
      }),
    )
    const hostNames = Object.values(world.hosts)
    const gateway = await begun(openGateway({ hostNames, accept, isDown: faults.down }))
    faults.onChange(() => faults.down() && reset())
    return {
      ...viewOf(world),
      ...{ user, stranger, faults, stop },
      gateway: gateway.url,
      ca: certificates.ca,
      caFile: files.caFile,
      registryAuth: {
        realm: `https://${world.hosts.registry}/oauth/token`,
        service: 'registry',
        issuer: world.hosts.registry,
        rootCertificate: certificates.tokenSigner.cert,
        rootCertificateFile: files.rootCertificateFile,
      },
      get apiKey() {
        return user.apiKeys[0] ?? ''
      },
      addTokens: (name, descriptions) => {
        const organization = world.directory.organization(name)
        for (const description of descriptions) {
          const wish = { organization, description, permanent: true, write: false }
          tokens.mint(wish, world.clock.now())
        }
      },
      describeToken: tokens.describe,
      on: hooks.on,
      setRegistryUpstream: proxy.setUpstream,
    }
  })
}

/** The part of the state that tests can use. */
function viewOf(world: World) {
  const { hosts, settings, clock, ledger, directory, sessions, secrets } = world
  return {
    domain: hosts.api.slice('api.'.length),
    ...{ hosts, settings, clock, ledger },
    addUser: directory.addUser,
    addOrganization: directory.addOrganization,
    organization: directory.organization,
    expireAccessTokens: sessions.expireAccessTokens,
    revokeRefreshTokens: () => {
      sessions.revokeRefreshTokens()
      world.iamTokens.endSessions()
    },
    issued: () => [...new Set([...secrets.all(), ...directory.credentials()])],
  }
}
