"""Why a condition of DatabaseUser is as it is."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class UserReason(Reason):
    """Reasons of DatabaseUser. Where the target itself cannot be used, Ready carries the target's own reason."""

    IN_FORCE = "InForce", "Role, password and privileges equal the spec.", "Nothing."
    OBSERVING = (
        "Observing",
        "The plan was computed and nothing is written: this object or its target is in mode Observe.",
        "Set `mode: Enforce` on both when the differences in the status are what you want.",
    )
    SUSPENDED = "Suspended", "`spec.suspend` is true: the role is left as it is.", "Set `spec.suspend: false`."
    ACCEPTED = "Accepted", "The target exists and admits all that the spec asks for.", "Nothing."
    AS_EXPECTED = "AsExpected", "Nothing is out of the ordinary.", "Nothing."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec does not parse; the message names the field. The CRD in the cluster is of another version.",
        "Correct the field that the message names.",
    )
    TARGET_NOT_FOUND = (
        "TargetNotFound",
        "`spec.targetRef` names a PostgresTarget that does not exist.",
        "Create it, or make another DatabaseUser with the right reference.",
    )
    TARGET_NOT_WATCHED = (
        "TargetNotWatched",
        "The target's namespace is not among those that this operator watches.",
        "Add the namespace to the operator's, or use a target in one of them.",
    )
    NOT_PERMITTED = (
        "NotPermitted",
        "The target's `access` does not admit what the spec asks for. Nothing is taken away meanwhile; but where the"
        " namespace or the role is not admitted any more, the login goes after the target's `withdrawalGrace`, if that"
        " says `onWithdrawal: Disable`.",
        "Ask the target's owner to add what the message names, or ask for less.",
    )
    SELECTOR_NEEDS_CLUSTER_MODE = (
        "SelectorNeedsClusterMode",
        "Only an `access` entry with a selector could admit the namespace, and this installation may not read the"
        " labels of namespaces, as in namespaced mode. Nothing is taken away meanwhile.",
        "Ask the target's owner to list the namespace in `namespaces.names`, or install pgtend in cluster mode.",
    )
    LOGIN_DISABLED = (
        "LoginDisabled",
        "The target does not admit the object any more, its `withdrawalGrace` is over, and it says"
        " `onWithdrawal: Disable`: the login was taken away. Sessions that began before go on.",
        "Ask the target's owner to admit it again, as the condition Accepted says: then the login is given back.",
    )
    ROLE_NOT_ALLOWED = (
        "RoleNotAllowed",
        "The role belongs to the server, to a managed service, or to pgtend itself; or it exists with the powers of a"
        " superuser, and such a role is never adopted.",
        "Make another DatabaseUser with another `roleName`.",
    )
    NOT_ACCEPTED = "NotAccepted", "Not looked at, since the object is not accepted.", "See the condition Accepted."
    NOT_REACHED = "NotReached", "Nothing is known while the target cannot be used.", "See the condition Ready."
    CONFLICT = (
        "Conflict",
        "Another DatabaseUser tends the same role of the same server, and comes first.",
        "Delete one of the two. The one that is named in the message goes on undisturbed.",
    )
    ROLE_EXISTS = (
        "RoleExists",
        "A role of this name exists and does not carry this object's mark. It is not touched.",
        "Make another DatabaseUser with another `roleName`; or let it be taken over with `adoption`, here and in the"
        " target's `access`; or, if the role is this object's, set the comment that the message gives.",
    )
    TAKEN_OVER = (
        "TakenOver",
        "The role was this object's, and now carries the mark of another installation. It is not taken back, or the two"
        " would fight over it.",
        "Decide which installation tends the role; there delete the object, or here set the comment that the message"
        " gives.",
    )
    NOT_UNIQUE = "NotUnique", "Not looked at, since the role is not this object's.", "See the condition Unique."
    SECRET_LOST = (
        "SecretLost",
        "The role exists, but the Secret with its generated password is gone. The role is left alone.",
        "Restore the Secret from a backup, give a password of your own in `password.secretRef`, or let another be made"
        " with `password.onLostSecret: Rotate`.",
    )
    NOT_PROVED = (
        "NotProved",
        "Whether the role still has the password of the Secret is not known: `pg_authid` may not be read, a role of the"
        " server was altered (or the operator has just begun), and for five minutes no login was answered. The message"
        " names the last one that was, and why none is since.",
        "Mostly nothing: it is tried in each turn. A `connectionLimit` that is always used up leaves no room for it; or"
        " let the login for `users` read `pg_authid`.",
    )
    SECRET_NOT_OWNED = (
        "SecretNotOwned",
        "A Secret of that name exists and is not this object's. It is never overwritten.",
        "Choose another name in `secret.name`, or delete that Secret.",
    )
    SECRET_MISSING = (
        "SecretMissing",
        "The Secret that `password.secretRef` names does not exist in the object's namespace.",
        "Create it, then touch the annotation `pgtend.dev/reconcile` or wait five minutes.",
    )
    SECRET_KEY_MISSING = (
        "SecretKeyMissing",
        "The Secret exists but lacks the key, or the key is empty.",
        "Add the key, or name another with `password.secretRef.key`.",
    )
    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "`spec.rotation` has a schedule or a time zone without meaning; the message says which.",
        "Write what the message proposes.",
    )
    NOT_REQUESTED = "NotRequested", "No rotation is asked for.", "Nothing; see `spec.rotation`."
    ROTATION_DUE = (
        "RotationDue",
        "The password is older than the spec wants, and is not rotated: nothing is written now, or the login that would"
        " be next lives on for the grace of the last rotation.",
        "See the message; a shorter `rotation.grace` lets rotations follow each other sooner.",
    )
    LOGIN_REFUSED = (
        "LoginRefused",
        "A place that the Secret leads to refused the login. A new one is not published before it gets in everywhere.",
        "See the message: pg_hba.conf, the pooler's list of users, CONNECT on the database.",
    )
    LOGIN_OWNS_OBJECTS = (
        "LoginOwnsObjects",
        "Objects belong to a login and not to the role that it acts as: the other login may not alter them.",
        "Run the statement that the message gives, in the databases where they are.",
    )
    POOLER_MISSING = (
        "PoolerMissing",
        "`spec.secret.endpoint` is Pooler, and the target has no `spec.pooler`. No Secret is written.",
        "Add the pooler to the target, or set `endpoint: Members`.",
    )
    SECRET_REFUSED = (
        "SecretRefused",
        "The API server refuses the Secret: rights, a quota, or an admission policy.",
        "See the message; it is tried again with growing pauses.",
    )
    PASSWORD_EXPIRED = (
        "PasswordExpired",
        "`spec.validUntil` has passed: the server refuses the password.",
        "Set a later `validUntil`, or remove it.",
    )
    PASSWORD_DIFFERS = (
        "PasswordDiffers",
        "The role's password is not the one in the Secret.",
        "In Enforce it is set again by itself; otherwise set it, or see the other conditions.",
    )
    MISSING_PRIVILEGE = (
        "MissingPrivilege",
        "The credential `users` may not do this on the server.",
        "Run the statement that the message gives, as an administrator.",
    )
    SETTING_NOT_ALLOWED = (
        "SettingNotAllowed",
        "A setting that the spec names is more than an ordinary role may set, and the credential `users` was not given"
        " it with GRANT SET ON PARAMETER (15 and later). It is not set, not even by a superuser.",
        "Take it out of the spec, or run the statement that the message gives.",
    )
    NOT_SUPPORTED = (
        "NotSupported",
        "The server's version does not know what the spec asks for.",
        "See the message; take it out of the spec, or upgrade the server.",
    )
    OBJECT_MISSING = (
        "ObjectMissing",
        "A database, schema, table or role that the spec names does not exist.",
        "Create it or correct the name; it is tried again every five minutes.",
    )
    WRITE_FAILED = (
        "WriteFailed",
        "The server refused or broke off a change; it is tried again with growing pauses.",
        "See the message; where it stays, look into the server's log at that time.",
    )
    DIVERGED = (
        "Diverged",
        "All changes were carried out without an error, and yet the role is not as the spec says.",
        "Somebody else changes the role too, or an event trigger does: see the differences in the status.",
    )
    DRIFTED = (
        "Drifted",
        "The role differs from the spec; `status.drift` lists how.",
        "In Observe decide whether to enforce; in Enforce see the other conditions for what stands in the way.",
    )
    NOT_CREATED = "NotCreated", "The role does not exist yet.", "See the other conditions for what stands in the way."
    DROP_BLOCKED = (
        "DropBlocked",
        "The role cannot be dropped, since objects or privileges of others depend on it. Nothing was dropped. After ten"
        " minutes the object is let go, and the ConfigMap `pgtend-ledger` lists what remains; it is tried again from"
        " there.",
        "Reassign or drop what the message names, or set `deletionPolicy: Retain`.",
    )
    TOO_MANY_AT_ONCE = (
        "TooManyAtOnce",
        "As many roles of this target as its `maxDestructivePerPass` allows have just been dropped or disabled; this"
        " one waits for the next pass, some seconds later.",
        "Nothing; or, if this is a mistake, set the brake and correct it. More at once: raise `maxDestructivePerPass`.",
    )
    SESSIONS_REMAIN = (
        "SessionsRemain",
        "The role cannot be dropped while it has sessions. After ten minutes the object is let go, and the ConfigMap"
        " `pgtend-ledger` lists what remains; it is tried again from there.",
        "End them, let `drop.sessions` wait for them or end them, or set `deletionPolicy: Retain`.",
    )
