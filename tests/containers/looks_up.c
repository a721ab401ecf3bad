/* Looks a user up by the C library, as a static binary should not: it loads the plugins that /etc/nsswitch.conf of the image names. */
#include <pwd.h>

int main(void) { return getpwnam("app") == 0; }
