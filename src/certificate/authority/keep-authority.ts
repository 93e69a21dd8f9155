import type { Logger } from 'pino'
import type { KubernetesClient } from '../../kubernetes/client.ts'
import { CertificateError } from '../certificate.ts'
import {
  type Authority,
  type AuthorityMoment,
  type AuthorityStep,
  begun,
  planAuthority,
  signingWithNext,
  withNext,
  withoutOlder,
} from './authority.ts'
import {
  type AuthorityStore,
  createAuthorityStore,
  type StoredAuthority,
} from './authority-store.ts'
import { makeAuthority } from './sign-certificate.ts'

export interface AuthorityKeeper {
  /**
   * Reads the authority, makes it where there is none, and takes the step that is due. `trusts`:
   * whether the API server trusts a certificate (PEM). Rejects with a KubernetesError, or with a
   * CertificateError where the Secret holds no CA.
   */
  keep(trusts: AuthorityMoment['trusts']): Promise<Authority>
}

export interface AuthorityOptions {
  client: Pick<KubernetesClient, 'core'>
  /** Where the Secret is, and its name. */
  namespace: string
  secretName: string
  /** This replica, unlike every other. */
  identity: string
  leafSeconds: number
  caSeconds: number
  now: () => Date
  logger: Logger
}

/**
 * Keeps the CA in its Secret, together with the other replicas and without a leader: whoever is
 * first makes it or takes the step, the others find that they are late and read what is there. A
 * Secret that somebody deleted is put back as this replica remembers it, since serving certificates
 * of that CA are in use; to begin with another CA at once, delete it while no replica runs.
 */
export function createAuthorityKeeper(options: AuthorityOptions): AuthorityKeeper {
  const { leafSeconds, now } = options
  const store = createAuthorityStore(options)
  let remembered: Authority | undefined
  return {
    async keep(trusts) {
      const stored = (await store.read()) ?? (await create(store, options, remembered))
      const step = planAuthority(stored.authority, { now: now(), leafSeconds, trusts })
      remembered = await takeStep(store, options, { stored, step })
      return remembered
    },
  }
}

async function create(
  store: AuthorityStore,
  { caSeconds, now, logger, secretName }: AuthorityOptions,
  remembered: Authority | undefined,
): Promise<StoredAuthority> {
  const authority = remembered ?? begun(await makeAuthority(now(), caSeconds), now())
  if (await store.create(authority)) {
    logger.info({ secret: secretName, step: remembered ? 'put-back' : 'begin' }, 'CA made')
  }
  return readAgain(store)
}

async function takeStep(
  store: AuthorityStore,
  options: AuthorityOptions,
  { stored, step }: { stored: StoredAuthority; step: AuthorityStep },
): Promise<Authority> {
  if (step === 'keep') return stored.authority
  const changed = await afterStep(step, stored.authority, options)
  if (!(await store.replace(stored, changed))) return (await readAgain(store)).authority
  options.logger.info({ secret: options.secretName, step }, 'CA changed')
  return changed
}

async function afterStep(
  step: Exclude<AuthorityStep, 'keep'>,
  authority: Authority,
  { now, caSeconds }: AuthorityOptions,
): Promise<Authority> {
  if (step === 'sign-with-next') return signingWithNext(authority, now())
  if (step === 'drop-older') return withoutOlder(authority, now())
  const made = await makeAuthority(now(), caSeconds)
  return step === 'begin' ? begun(made, now()) : withNext(authority, made, now())
}

async function readAgain(store: AuthorityStore): Promise<StoredAuthority> {
  const stored = await store.read()
  if (stored) return stored
  throw new CertificateError('the Secret of the CA was deleted as it was made')
}
