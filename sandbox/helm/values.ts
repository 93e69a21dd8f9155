import type { BluemixEnvironment } from '../bluemix/environment.ts'

/** Values of the chart: sections by name, and single values. */
export type Values = Record<string, string | number | Record<string, unknown>>

/** The values that a sandbox needs; pods reach the environment through `gateway`; the credentials are in the Secret `bluemix`. */
export function ownValues(
  { domain, ca }: BluemixEnvironment,
  gateway: string,
  image: Values[string],
): Values {
  return {
    domain,
    bluemix: { organization: 'acme' },
    credentials: { existingSecret: 'bluemix' },
    image,
    environmentCa: { pem: ca },
    proxy: { https: gateway },
    webhook: { failurePolicy: 'Fail' },
  }
}

/** `values` with `more` merged into it, section by section. */
export function merged(values: Values, more: Values = {}): Values {
  const all = { ...values }
  for (const [name, value] of Object.entries(more)) {
    const known = all[name]
    all[name] =
      typeof value === 'object' && typeof known === 'object' ? { ...known, ...value } : value
  }
  return all
}
