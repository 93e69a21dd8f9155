import { cp, rm } from 'node:fs/promises'
import { type Access, openAccess, writeKubeconfig } from './control-plane/access.ts'
import { type AuditEvent, readAudit } from './control-plane/audit.ts'
import {
  type Layout,
  layOut,
  startApiserver,
  startControllerManager,
  startEtcd,
} from './control-plane/programs.ts'
import { onFreePorts } from './ports.ts'
import { makeFolder, type RunningProcess } from './processes.ts'
import { type KubernetesVersion, tool } from './tools.ts'

export type { AuditEvent } from './control-plane/audit.ts'

export interface ControlPlane extends Access {
  readonly url: string
  readonly apiserverPort: number
  /** The socket through which the API server reaches Services; see node/network.ts. */
  readonly egressSocket: string
  /** The requests for objects that `AUDIT_POLICY` names. */
  audit(): Promise<AuditEvent[]>
  /** Stops only the API server: gracefully, or like a crash with `graceMs` 0. */
  stopApiserver(graceMs?: number): Promise<void>
  /** Starts it again on its port; resolves when it is ready. */
  startApiserver(): Promise<void>
  /** Stops it and starts it again. */
  restart(graceMs?: number): Promise<void>
  /**
   * Copies the data of etcd while etcd and the API server are stopped. Resolves with a function that
   * restores the copy: the API server then has an earlier state, with lower resource versions.
   */
  backUp(): Promise<() => Promise<void>>
  /** Stops everything and removes every file. */
  stop(): Promise<void>
}

interface Programs {
  etcd: string
  apiserver: string
  kubectl: string
  controllerManager: string | undefined
}

/**
 * Starts etcd, kube-apiserver and optionally kube-controller-manager, on their own ports and in
 * their own folder. Resolves when /readyz is ok, the namespace `default` exists and, with the
 * controller manager, its ServiceAccount `default` exists. Webhooks with a `url` on 127.0.0.1 are
 * called.
 */
export async function startControlPlane(
  options: { controllerManager?: boolean; version?: KubernetesVersion } = {},
): Promise<ControlPlane> {
  const { version, controllerManager = false } = options
  const programs = {
    etcd: await tool('etcd', { version }),
    apiserver: await tool('kube-apiserver', { version }),
    kubectl: await tool('kubectl', { version }),
    controllerManager: controllerManager
      ? await tool('kube-controller-manager', { version })
      : undefined,
  }
  return onFreePorts(async (etcd, etcdPeer, apiserver) =>
    startOn({ etcd, etcdPeer, apiserver }, programs),
  )
}

async function startOn(ports: Layout['ports'], programs: Programs): Promise<ControlPlane> {
  const folder = await makeFolder('control-plane')
  const layout = layOut(folder.path, ports)
  const running: { [name in keyof Programs]?: RunningProcess } = {}

  async function apiserver(): Promise<void> {
    running.apiserver = await startApiserver(programs.apiserver, layout)
  }

  async function stopApiserver(graceMs?: number): Promise<void> {
    await running.apiserver?.stop(graceMs)
  }

  async function atRest(change: () => Promise<void>): Promise<void> {
    await stopApiserver()
    await running.etcd?.stop()
    await change()
    running.etcd = await startEtcd(programs.etcd, layout)
    await apiserver()
  }

  async function backUp(): Promise<() => Promise<void>> {
    const data = layout.file('etcd')
    const copy = layout.file('etcd-backup')
    await atRest(() => cp(data, copy, { recursive: true }))
    return () =>
      atRest(async () => {
        await rm(data, { recursive: true })
        await cp(copy, data, { recursive: true })
      })
  }

  // Nothing here needs a graceful stop.
  async function stop(): Promise<void> {
    await Promise.all(Object.values(running).map(started => started.stop(0)))
    await folder.remove()
  }

  try {
    running.etcd = await startEtcd(programs.etcd, layout)
    await apiserver()
    const access = await openAccess(layout, programs.kubectl)
    if (programs.controllerManager !== undefined) {
      const kubeconfig = await writeKubeconfig(layout, layout.url, layout.tokens.controllerManager)
      const command = programs.controllerManager
      running.controllerManager = await startControllerManager(command, layout, kubeconfig)
    }
    return {
      ...access,
      url: layout.url,
      apiserverPort: ports.apiserver,
      egressSocket: layout.egressSocket,
      audit: async () => readAudit(layout.auditFile),
      stopApiserver,
      startApiserver: apiserver,
      async restart(graceMs) {
        await stopApiserver(graceMs)
        await apiserver()
      },
      backUp,
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}
