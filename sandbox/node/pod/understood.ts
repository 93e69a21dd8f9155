import type { V1Pod } from '@kubernetes/client-node'
import { check, each, every, only, type Table } from './entry.ts'

/**
 * What this node understands of a pod. A field that is not in these tables, or has a value that
 * is not, is refused: a node that left it out in silence would make a pod look better, or worse,
 * than it is.
 *
 * | entry          | means                                                        |
 * |----------------|--------------------------------------------------------------|
 * | done           | carried out                                                  |
 * | idle           | has nothing to act on here: one node, no pulls, no quotas    |
 * | only(...)      | these values are carried out, others are refused             |
 * | each / every   | a list / a map of such                                       |
 */
const done = true
const idle = true

const ACTION: Table = { exec: done, httpGet: done, tcpSocket: done }
const PROBE: Table = {
  ...ACTION,
  initialDelaySeconds: done,
  periodSeconds: done,
  timeoutSeconds: done,
  successThreshold: done,
  failureThreshold: done,
  terminationGracePeriodSeconds: done,
}
const HOOK: Table = { exec: done, httpGet: done, sleep: done }
const CONTAINER_SECURITY: Table = {
  runAsUser: done,
  runAsGroup: done,
  runAsNonRoot: done,
  readOnlyRootFilesystem: done,
  allowPrivilegeEscalation: only(false),
  privileged: only(false),
  capabilities: { drop: done },
  seccompProfile: { type: only('RuntimeDefault', 'Unconfined') },
}
const CONTAINER: Table = {
  name: done,
  image: done,
  imagePullPolicy: idle,
  command: done,
  args: done,
  workingDir: done,
  env: done,
  envFrom: done,
  ports: each({ name: done, containerPort: done, protocol: only('TCP') }),
  resources: idle,
  resizePolicy: idle,
  volumeMounts: each({
    name: done,
    mountPath: done,
    readOnly: done,
    subPath: done,
    subPathExpr: done,
  }),
  startupProbe: PROBE,
  livenessProbe: PROBE,
  readinessProbe: PROBE,
  lifecycle: { preStop: HOOK, postStart: HOOK },
  terminationMessagePath: only('/dev/termination-log'),
  terminationMessagePolicy: done,
  securityContext: CONTAINER_SECURITY,
  stdin: only(false),
  tty: only(false),
}
const PROJECTION: Table = {
  serviceAccountToken: done,
  configMap: done,
  secret: done,
  downwardAPI: done,
}
const VOLUME: Table = {
  name: done,
  configMap: done,
  secret: done,
  downwardAPI: done,
  emptyDir: { medium: idle, sizeLimit: idle },
  projected: { defaultMode: done, sources: each(PROJECTION) },
}
const POD_SPEC: Table = {
  containers: each(CONTAINER),
  initContainers: each(CONTAINER),
  volumes: each(VOLUME),
  restartPolicy: done,
  terminationGracePeriodSeconds: done,
  serviceAccountName: done,
  serviceAccount: done,
  automountServiceAccountToken: done,
  enableServiceLinks: done,
  hostname: done,
  nodeName: done,
  securityContext: {
    runAsUser: done,
    runAsGroup: done,
    runAsNonRoot: done,
    fsGroup: done,
    fsGroupChangePolicy: idle,
    supplementalGroups: done,
    seccompProfile: { type: only('RuntimeDefault', 'Unconfined') },
  },
  affinity: idle,
  tolerations: idle,
  topologySpreadConstraints: idle,
  nodeSelector: every('kubernetes.io/os', 'kubernetes.io/arch'),
  priority: idle,
  priorityClassName: idle,
  preemptionPolicy: idle,
  schedulerName: idle,
  imagePullSecrets: idle,
  dnsPolicy: only('ClusterFirst', 'Default', 'ClusterFirstWithHostNet'),
  hostNetwork: only(false),
  hostPID: only(false),
  hostIPC: only(false),
  shareProcessNamespace: only(false),
}

/**
 * Every field of the pod that this node does not understand, one sentence each; empty: the pod can
 * run.
 */
export function refusals(pod: V1Pod): string[] {
  return check(pod.spec, POD_SPEC, 'spec')
}
