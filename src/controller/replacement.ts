import { TokenError } from '../issuer/issuer.ts'

const code = 'credential_refused'
/** So many dead tokens of an organization are replaced at once. */
const mostAtOnce = 10

export interface Replacements {
  /**
   * Called for each namespace that is looked at: its token is dead by the list, refused by the
   * registry, neither, or the namespace does not need one.
   */
  observe(organization: string, namespace: string, state: TokenState): void
  /** A dead token of the namespace may be replaced now. */
  mayReplace(organization: string, namespace: string): boolean
  /** The dead token of the namespace was replaced by the one with this hash. */
  replaced(organization: string, namespace: string, hash: string): void
  /** Others wait for what the registry says about the token of this namespace. */
  isFirst(namespace: string): boolean
  /** Why nothing is replaced in the organization. */
  problem(organization: string): TokenError | undefined
  isProblem(error: unknown): boolean
  clear(): void
}

type TokenState = 'dead' | 'refused' | 'in_use' | 'none'

/** The last namespace that got a new token in the place of a dead one. */
interface Trial {
  namespace: string
  /** Of its new token; undefined: it has none yet. */
  hash: string | undefined
  /** Others wait for it. */
  isFirst: boolean
  /** The registry has accepted its new token. What it answers later says nothing of other tokens. */
  isPassed: boolean
}

/**
 * When many tokens of an organization are dead at once, the list may be wrong, or the registry. So
 * one namespace gets a new token first; the others follow when the registry accepts it.
 *
 * | dead at once | the new token of the first | the others                   |
 * |--------------|----------------------------|------------------------------|
 * | up to ten    | not asked about yet        | are replaced                 |
 * | more         | not asked about yet        | wait                         |
 * | any number   | accepted                   | are replaced                 |
 * | any number   | refused                    | nothing is minted: reported  |
 */
export function createReplacements(checks: {
  isRefused(hash: string | undefined): boolean
  isAccepted(hash: string): boolean
}): Replacements {
  const dead = new Map<string, Set<string>>()
  const trials = new Map<string, Trial>()
  const problem = (organization: string) => {
    const trial = trials.get(organization)
    const isFailed = trial?.isPassed === false && checks.isRefused(trial.hash)
    return isFailed ? refusesNewTokens(organization) : undefined
  }
  return {
    observe: (organization, namespace, state) => {
      const all = dead.get(organization) ?? new Set()
      dead.set(organization, all)
      if (state === 'dead' || state === 'refused') all.add(namespace)
      else all.delete(namespace)
      leaveOthers({ dead, trials }, organization, namespace)
      const trial = trials.get(organization)
      if (trial !== undefined) progress(trial, all.size > 0, checks)
      const isRefused = checks.isRefused(trial?.hash)
      if (trial?.namespace === namespace && isOver(trial, state, isRefused)) {
        trials.delete(organization)
      }
    },
    ...createGate({ dead, trials, problem }),
    isFirst: namespace =>
      [...trials.values()].some(trial => trial.isFirst && trial.namespace === namespace),
    problem,
    isProblem: error => error instanceof TokenError && error.code === code,
    clear: () => {
      dead.clear()
      trials.clear()
    },
  }
}

/** Others wait no longer where nothing is dead, or where the registry accepts the new token. */
function progress(
  trial: Trial,
  othersAreDead: boolean,
  checks: { isAccepted(hash: string): boolean },
): void {
  if (!othersAreDead) trial.isFirst = false
  if (trial.hash !== undefined && checks.isAccepted(trial.hash)) trial.isPassed = true
}

interface State {
  dead: Map<string, Set<string>>
  trials: Map<string, Trial>
  problem: (organization: string) => TokenError | undefined
}

function createGate({ dead, trials, problem }: State): {
  mayReplace: Replacements['mayReplace']
  replaced: Replacements['replaced']
} {
  return {
    mayReplace: (organization, namespace) => {
      const trial = trials.get(organization)
      if (problem(organization) !== undefined) return false
      if (trial?.isFirst) {
        return trial.namespace === namespace || trial.isPassed
      }
      const isCrowd = (dead.get(organization)?.size ?? 0) > mostAtOnce
      if (isCrowd)
        trials.set(organization, { namespace, hash: undefined, isFirst: true, isPassed: false })
      return true
    },
    replaced: (organization, namespace, hash) => {
      const trial = trials.get(organization)
      if (trial?.isFirst && trial.namespace !== namespace) return
      const isFirst = trial?.isFirst ?? false
      trials.set(organization, { namespace, hash, isFirst, isPassed: false })
    },
  }
}

/** The namespace may have used another organization before. */
function leaveOthers(
  { dead, trials }: { dead: Map<string, Set<string>>; trials: Map<string, Trial> },
  organization: string,
  namespace: string,
): void {
  for (const [other, all] of dead) if (other !== organization) all.delete(namespace)
  for (const [other, trial] of trials) {
    if (other !== organization && trial.namespace === namespace) trials.delete(other)
  }
}

/**
 * Its token was revoked, or is not in the Secret any more, or nobody needs it: what the registry
 * answers about it means nothing.
 */
function isOver({ hash }: Trial, state: TokenState, isRefused: boolean): boolean {
  if (state === 'in_use') return isRefused
  return state === 'none' || (state === 'dead' && hash !== undefined)
}

function refusesNewTokens(organization: string): TokenError {
  return new TokenError('the registry refuses the tokens that it issues for this organization', {
    kind: 'permanent',
    scope: 'organization',
    code,
    organization,
  })
}
