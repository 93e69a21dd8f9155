import { readFile } from 'node:fs/promises'

/** Who did what on the API server: the fields of audit.k8s.io/v1 Event at level Metadata. */
export interface AuditEvent {
  auditID: string
  /** A watch is written twice: when it began to answer, and when it ended. */
  stage: 'ResponseStarted' | 'ResponseComplete' | 'Panic'
  /** get, list, watch, create, update, patch, delete, deletecollection */
  verb: string
  requestURI: string
  user: { username: string; groups?: string[] }
  userAgent?: string
  objectRef?: {
    apiGroup?: string
    resource: string
    subresource?: string
    namespace?: string
    name?: string
  }
  responseStatus?: { code: number; reason?: string; message?: string }
  annotations?: Record<string, string>
  requestReceivedTimestamp: string
  stageTimestamp: string
}

/** What the API server writes down: everything about the objects that pullpass deals with. */
export const AUDIT_POLICY = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived'],
  rules: [
    {
      level: 'Metadata',
      resources: [
        {
          group: '',
          resources: [
            ...['secrets', 'namespaces', 'namespaces/*', 'pods', 'pods/*'],
            ...['serviceaccounts', 'serviceaccounts/*'],
          ],
        },
        { group: 'coordination.k8s.io', resources: ['leases'] },
        { group: 'events.k8s.io', resources: ['events'] },
        {
          group: 'admissionregistration.k8s.io',
          resources: ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'],
        },
      ],
    },
    { level: 'None' },
  ],
}

/** All events so far, oldest first. A line that is just being written waits for the next call. */
export async function readAudit(file: string): Promise<AuditEvent[]> {
  const lines = (await readFile(file, 'utf8')).split('\n')
  return lines.slice(0, -1).map(line => JSON.parse(line) as AuditEvent)
}
