import { dnsLabel } from '../names.ts'

/*
 * Every token of ours carries a description:
 *
 *     pullpass/<cluster>/<namespace>/<minted at, UTC seconds>    the token of a namespace
 *     pullpass/<cluster>/<namespace>                             the same, of the first version
 *     pullpass/<cluster>//<nonce>                                the mark of a leader
 *
 * `cluster` is the UID of kube-system or the setting `clusterName`: clusters that share an
 * organization leave each other's tokens alone.
 */

/** What a description says to the cluster that wrote it; undefined: it is not ours. */
export type Described =
  | { namespace: string; mintedAt: Date | undefined }
  | { mark: string }
  | undefined

export function tokenDescription(cluster: string, namespace: string, mintedAt: Date): string {
  return `pullpass/${cluster}/${namespace}/${Math.floor(mintedAt.getTime() / 1000)}`
}

export function markDescription(cluster: string, nonce: string): string {
  return `pullpass/${cluster}//${nonce}`
}

const ofNamespace = new RegExp(`^(${dnsLabel})(?:/(\\d{1,11}))?$`)
const ofMark = /^\/([\w-]{1,64})$/

export function readDescription(cluster: string, description: string): Described {
  const ours = `pullpass/${cluster}/`
  if (!description.startsWith(ours)) return undefined
  const rest = description.slice(ours.length)
  const mark = ofMark.exec(rest)?.[1]
  if (mark !== undefined) return { mark }
  const [, namespace, seconds] = ofNamespace.exec(rest) ?? []
  if (namespace === undefined) return undefined
  return {
    namespace,
    mintedAt: seconds === undefined ? undefined : new Date(Number(seconds) * 1000),
  }
}
