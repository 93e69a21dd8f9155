export interface OrganizationRules {
  /** The organization of every namespace of which nothing else is said; name or GUID. */
  organization: string
  namespaceOrganizations: Readonly<Record<string, string>>
  selectableOrganizations: readonly { organization: string; namespaces: readonly string[] }[]
}

export type OrganizationChoice = { organization: string } | { refused: string }

/**
 * The organization whose images a namespace pulls.
 *
 * | settings name one for the namespace | annotation        | selectable for it | organization     |
 * |-------------------------------------|-------------------|-------------------|------------------|
 * | yes                                 | none, or the same |                   | the settings'    |
 * | no                                  | none              |                   | the default      |
 * | no                                  | the default       |                   | the default      |
 * | any                                 | another           | yes               | the annotation's |
 * | any                                 | another           | no                | refused          |
 */
export function chooseOrganization(
  namespace: string,
  annotation: string | undefined,
  rules: OrganizationRules,
): OrganizationChoice {
  const own = Object.hasOwn(rules.namespaceOrganizations, namespace)
    ? rules.namespaceOrganizations[namespace]
    : undefined
  const given = own ?? rules.organization
  if (annotation === undefined || annotation === given) return { organization: given }
  const allowed = rules.selectableOrganizations.some(
    ({ organization, namespaces }) =>
      organization === annotation && namespaces.some(pattern => matches(pattern, namespace)),
  )
  return allowed
    ? { organization: annotation }
    : { refused: `the settings do not let namespace ${namespace} use the organization it asks for` }
}

/** Every organization that the settings name. */
export function namedOrganizations(rules: OrganizationRules): string[] {
  return [
    rules.organization,
    ...Object.values(rules.namespaceOrganizations),
    ...rules.selectableOrganizations.map(({ organization }) => organization),
  ]
}

/** An exact name, or a beginning followed by `*`. */
function matches(pattern: string, namespace: string): boolean {
  return pattern.endsWith('*') ? namespace.startsWith(pattern.slice(0, -1)) : namespace === pattern
}
