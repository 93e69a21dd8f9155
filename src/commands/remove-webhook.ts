import { type KubernetesClient, unlessStatus } from '../kubernetes/client.ts'

/**
 * Deletes the MutatingWebhookConfiguration, so that the API server sends no pod to a service that is
 * about to be removed. Resolves to a sentence, also where it does not exist; rejects with a
 * KubernetesError.
 */
export async function removeWebhook(
  { client }: { client: KubernetesClient },
  { name }: { name: string },
): Promise<string> {
  const webhook = `MutatingWebhookConfiguration ${name}`
  const deleting = client.admissionregistration.deleteMutatingWebhookConfiguration({ name })
  const deleted = await unlessStatus([404], `delete ${webhook}`, deleting)
  return deleted === undefined ? `${webhook} does not exist` : `${webhook} deleted`
}
