import type { BluemixEnvironment } from '../bluemix/environment.ts'

/** Values of the chart: a section of them by its name, or one that is in none. */
export type Values = Record<string, string | number | Record<string, unknown>>

/** What the chart must be told in a sandbox; the credentials are in the Secret `bluemix`. */
export function ownValues(
  { domain, ca, gateway }: BluemixEnvironment,
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

/** `more` on top of `values`, section by section. */
export function merged(values: Values, more: Values = {}): Values {
  const all = { ...values }
  for (const [name, value] of Object.entries(more)) {
    const known = all[name]
    all[name] =
      typeof value === 'object' && typeof known === 'object' ? { ...known, ...value } : value
  }
  return all
}
