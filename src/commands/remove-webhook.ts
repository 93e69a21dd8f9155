import { asKubernetesError, type KubernetesClient } from '../kubernetes/client.ts'

/**
 * Deletes the MutatingWebhookConfiguration, so that no pod is sent to a service that is about to
 * go. One that is not there is fine. Resolves to a sentence; rejects with a KubernetesError.
 */
export async function removeWebhook(
  client: Pick<KubernetesClient, 'admissionregistration'>,
  name: string,
): Promise<string> {
  const what = `MutatingWebhookConfiguration ${name}`
  try {
    await client.admissionregistration.deleteMutatingWebhookConfiguration({ name })
    return `${what} deleted`
  } catch (error) {
    const failure = asKubernetesError(`delete ${what}`, error)
    if (failure.status === 404) return `${what} was not there`
    throw failure
  }
}
