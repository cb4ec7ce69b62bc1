// The users whom GetUsage and the status page list.
#ifndef QKSCOPE_SERVER_CALLS_USER_STATES_H_
#define QKSCOPE_SERVER_CALLS_USER_STATES_H_

#include <map>
#include <string>
#include <vector>

#include "server/access/identity.h"
#include "server/common/user.h"
#include "server/results/result_store.h"
#include "server/schedule/listing.h"

namespace qk {

// Whether a viewer of the metrics port may see a user: without credentials on
// the server everybody, operators all, others themselves. `viewer`: nullptr:
// nobody.
bool MaySeeUser(const Identity& identity, const User* viewer,
                const std::string& alias);

// What is known of a user who has done nothing since the server started.
UserState NewState(const User& user);

// Adds the owners of results who are not among the users: they have not called
// since the server started. `kept`: ResultStore::KeptByUser.
void AddOwners(const std::map<std::string, KeptAmount>& kept,
               const Identity& identity, std::vector<UserState>* users);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_USER_STATES_H_
