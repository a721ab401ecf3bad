/* A name-service plugin that kills whoever loads it. */
__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }
