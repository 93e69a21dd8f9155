/** The label of pullpass: on a namespace `enabled` or `true` opts in, on a pod `disabled` or `false` opts out. */
export const injectLabel = 'pullpass.io/inject'

/** A DNS label of RFC 1123, as a regular expression. */
export const dnsLabel = '[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?'

const wholeLabel = new RegExp(`^${dnsLabel}$`)

/** Whether a namespace can have this name. */
export function isNamespaceName(text: string): boolean {
  return wholeLabel.test(text)
}

/** Served by no label: what the cluster needs to start, and pullpass itself. */
export function neverServedWith(...releaseNamespaces: string[]): ReadonlySet<string> {
  return new Set(['kube-system', 'kube-node-lease', ...releaseNamespaces])
}
