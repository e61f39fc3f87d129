//! TokenReview, SelfSubjectReview and the SubjectAccessReview family: computed, never stored.
