import { readFile } from 'node:fs/promises'

/** Who did what on the API server: the fields of audit.k8s.io/v1 Event at level Metadata. */
export interface AuditEvent {
  auditID: string
  /** A watch is recorded twice: when its response starts, and when it ends. */
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

/** What the API server records: all requests for the kinds of objects that pullpass uses. */
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

/** All events so far, oldest first, without a line that is not complete yet. */
export async function readAudit(file: string): Promise<AuditEvent[]> {
  const lines = (await readFile(file, 'utf8')).split('\n')
  return lines.slice(0, -1).map(line => JSON.parse(line) as AuditEvent)
}
