import type { V1Pod } from '@kubernetes/client-node'

/**
 * What an image is on this node: a program of this machine, started the way the image would start
 * it.
 */
export interface ImageProgram {
  /** The image's ENTRYPOINT: absolute path of the program, and its first arguments. */
  command: string[]
  /** The image's CMD: used where the pod gives neither command nor args. */
  args?: string[]
  /** It and the folder of command[0] stay visible also under a volume. */
  workingDirectory: string
  /** Folders of this machine that the image holds at paths of its own, by these. */
  contents?: Record<string, string>
  /** The image's USER; 0 where absent. */
  user?: number
  /** The image's ENV. */
  env?: Record<string, string>
  /**
   * Variables that make the program listen on the pod's own address (a 127.a.b.c). Pods of one
   * machine share its ports, so a program that listens on every address would leave no room for its
   * twin. They win over the pod's own.
   */
  environment?: (address: string, pod: V1Pod) => Record<string, string>
}

/** Images by the name pods give them. */
export type Programs = Readonly<Record<string, ImageProgram>>
