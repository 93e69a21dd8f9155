import type { CoreV1Api, V1Pod } from '@kubernetes/client-node'
import type { Privilege } from '../container/root-view.ts'
import type { Say } from '../container/start-patiently.ts'
import type { NamespaceObjects } from '../objects.ts'
import type { Programs } from '../programs.ts'

/** The rhythms of a node, in milliseconds; the defaults are the kubelet's where it has them. */
export interface Rhythm {
  /** How often a volume is looked at whether it still shows what is so. */
  volumes: number
  /** The first wait before a container that ended is started again, and the longest. */
  backOff: { first: number; most: number }
  /** The share of a token's life after which a new one is asked for. */
  renewTokensAt: number
}

/** What a pod finds on its node. */
export interface PodContext {
  core: CoreV1Api
  nodeName: string
  hostIP: string
  apiServer: { host: string; port: string }
  objects: NamespaceObjects
  programs: Programs
  privilege: Privilege
  rhythm: Rhythm
  /**
   * An empty folder for all of this pod's life; another for what its containers write to their
   * output.
   */
  folder: string
  logFolder: string
  takeAddress(): string
  say(pod: V1Pod): Say
}
