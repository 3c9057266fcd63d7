{{/*
What the operator may do, and for which feature: the only place. A verb stands here because code uses it; a test compares
the kinds with operator/pgtend/api/kinds.py, and tests/cluster/rights.py lists what the audit log of the tests lacks.

A new kind is one line in pgtend.kinds. `finalizer` is for kinds whose deletion undoes something outside, or that are
needed for it: setting and releasing it patches the object itself. `people` is which of the roles for people may write it: edit where nothing is said;
admin where it holds credentials and consent; nobody where it is the operator's record.
*/}}
{{- define "pgtend.kinds" -}}
- {kind: PostgresTarget, plural: postgrestargets, people: admin, finalizer: true}
- {kind: DatabaseUser, plural: databaseusers, finalizer: true}
- {kind: BackupDestination, plural: backupdestinations, people: admin}
- {kind: PostgresBackupPolicy, plural: postgresbackuppolicies}
- {kind: PostgresBackup, plural: postgresbackups}
- {kind: PostgresOperation, plural: postgresoperations}
- {kind: MaintenanceWindow, plural: maintenancewindows}
- {kind: MaintenanceRun, plural: maintenanceruns, people: nobody}
{{- end -}}

{{/* In every watched namespace: as the ClusterRole of mode Cluster, as a Role each in mode Namespaced. */}}
{{- define "pgtend.rules.watched" -}}
{{- $kinds := include "pgtend.kinds" . | fromYamlArray -}}
# every kind: seen all the time, told about in its status
- apiGroups: [pgtend.dev]
  resources:
    {{- range $kinds }}
    - {{ .plural }}
    {{- end }}
  verbs: [list, watch]
- apiGroups: [pgtend.dev]
  resources:
    {{- range $kinds }}
    - {{ .plural }}/status
    {{- end }}
  verbs: [patch]
{{- range $kinds }}
{{- if .finalizer }}
# {{ .kind }}: its finalizer
- apiGroups: [pgtend.dev]
  resources: [{{ .plural }}]
  verbs: [patch]
{{- end }}
{{- end }}
# every kind: an event where the worst condition changes
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# PostgresTarget: passwords, client certificates and CAs, by name when they are needed; never listed, never watched
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# DatabaseUser: the Secret with its password, by name; deleted only where its deletionPolicy drops the role
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
# PostgresBackup: records of what was found in the bucket, and their end with what they tell of
- apiGroups: [pgtend.dev]
  resources: [postgresbackups]
  verbs: [create, delete]
# MaintenanceWindow: a record per window and target, and the end of those that were never begun or are old
- apiGroups: [pgtend.dev]
  resources: [maintenanceruns]
  verbs: [create, delete]
# PostgresBackupPolicy: its CronJob
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, create, update]
# PostgresBackup: Jobs that dump and verify, and what their pods reported; PostgresOperation: the Job of a Restore
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, create]
# PostgresOperation: a Restore that is cancelled or over time ends with its Job
- apiGroups: [batch]
  resources: [jobs]
  verbs: [delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# PostgresOperation, MaintenanceRun: the items that a status has no room for, written once; read after a restart
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, get]
{{- end -}}

{{/* In mode Cluster, besides: the labels of namespaces, where a target's consent selects by them. One that came a moment
ago is asked for by its name. */}}
{{- define "pgtend.rules.cluster" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end -}}

{{/* In the operator's own namespace. Names are fixed: see app/operator.py, engine/brake.py, server/ledger.py. */}}
{{- define "pgtend.rules.own" -}}
# who leads; a name cannot be asked for where something is created
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [pgtend-leader]
  verbs: [get, update]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
# the brake is read only; the ledger is made at the first start
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [pgtend-brake, pgtend-ledger]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
# DatabaseUser: the ledger keeps what could not be undone
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [pgtend-ledger]
  verbs: [patch]
{{- end -}}

{{/* Of the uninstall job in every watched namespace: it tells what is left, and releases finalizers. */}}
{{- define "pgtend.rules.uninstall" -}}
{{- $kinds := include "pgtend.kinds" . | fromYamlArray -}}
- apiGroups: [pgtend.dev]
  resources:
    {{- range $kinds }}
    - {{ .plural }}
    {{- end }}
  verbs: [list]
{{- range $kinds }}
{{- if .finalizer }}
- apiGroups: [pgtend.dev]
  resources: [{{ .plural }}]
  verbs: [patch]
{{- end }}
{{- end }}
{{- end -}}

{{/* Of the uninstall job in the operator's own namespace: the brake, and in the ledger what was not undone. The brake is
owned by the operator's pods, so that it goes with the last of them and does not stop a later installation. */}}
{{- define "pgtend.rules.uninstallOwn" -}}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [pgtend-brake, pgtend-ledger]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- end -}}

{{/* For people, see people.yaml. Who may edit may cancel; who may write a target decides whose passwords are used where. */}}
{{- define "pgtend.rules.view" -}}
{{- $kinds := include "pgtend.kinds" . | fromYamlArray -}}
- apiGroups: [pgtend.dev]
  resources:
    {{- range $kinds }}
    - {{ .plural }}
    {{- end }}
  verbs: [get, list, watch]
{{- end -}}

{{- define "pgtend.rules.edit" -}}
{{- $kinds := include "pgtend.kinds" . | fromYamlArray -}}
- apiGroups: [pgtend.dev]
  resources:
    {{- range $kinds }}
    {{- if eq (default "edit" .people) "edit" }}
    - {{ .plural }}
    {{- end }}
    {{- end }}
  verbs: [create, update, patch, delete]
- apiGroups: [pgtend.dev]
  resources: [postgresoperations]
  verbs: [cancel]
{{- end -}}

{{- define "pgtend.rules.admin" -}}
{{- $kinds := include "pgtend.kinds" . | fromYamlArray -}}
- apiGroups: [pgtend.dev]
  resources:
    {{- range $kinds }}
    {{- if eq (default "edit" .people) "admin" }}
    - {{ .plural }}
    {{- end }}
    {{- end }}
  verbs: [create, update, patch, delete]
{{- end -}}

{{- define "pgtend.rules.restore" -}}
- apiGroups: [pgtend.dev]
  resources: [postgresoperations]
  verbs: [get, list, watch, create, update, patch, cancel, restore]
{{- end -}}

{{- define "pgtend.rules.terminate" -}}
- apiGroups: [pgtend.dev]
  resources: [postgresoperations]
  verbs: [get, list, watch, create, update, patch, cancel, terminate]
{{- end -}}
