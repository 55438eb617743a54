"""The calls of the original library, as /usr/bin/python3 and PyYAML make them.

    original.py ROOT STOP SEED

locks, reads, rewrites and releases the locks that the test's other clients use,
until the file STOP exists. It prints how often it did what.
"""

import collections
import os
import random
import sys

import yaml


class LockFilePresentError(Exception):
    pass


class LockFileNotPresentError(Exception):
    pass


class LockFileNotPresentForRemoval(Exception):
    pass


class LockActionError(Exception):
    pass


def is_locked(path):
    try:
        with open(path):
            return True
    except IOError:
        return False


def ensure_unlock(path):
    if is_locked(path):
        raise LockFilePresentError(path)
    return True


def ensure_lock(path):
    if not is_locked(path):
        raise LockFileNotPresentError(path)
    return True


def lock(lock_file_directory, lock_object, lock_data=None, lock_action='status',
         ensure_unlock_state=False, ensure_lock_state=False):
    lock_data = {} if lock_data is None else lock_data
    path = lock_file_directory + lock_object + '.lock'
    if not os.path.isdir(lock_file_directory):
        os.makedirs(lock_file_directory)

    if lock_action == 'status':
        if is_locked(path):
            with open(path) as file:
                lock_data.update(yaml.safe_load(file) or {})
            lock_data.update({'lock_file_location': path, 'lock_file_status': 'locked'})
        else:
            lock_data.update({'lock_file_location': None, 'lock_file_status': 'unlocked'})
    elif lock_action == 'lock':
        if ensure_unlock_state:
            ensure_unlock(path)
        lock_data.update({'lock_file_location': path, 'lock_file_status': 'locked'})
        with open(path, 'w') as file:
            yaml.dump(lock_data, file, default_flow_style=False)
    elif lock_action == 'unlock':
        if ensure_lock_state:
            ensure_lock(path)
        try:
            os.remove(path)
        except FileNotFoundError:
            raise LockFileNotPresentError(path)
        if is_locked(path):
            raise LockFileNotPresentForRemoval(path)
        lock_data.update({'lock_file_location': None, 'lock_file_status': 'unlocked'})
    else:
        raise LockActionError(lock_action)
    lock_data['lock_action'] = lock_action
    return lock_data


def main(root, stop, seed):
    chance = random.Random(int(seed))
    did = collections.Counter()
    while not os.path.exists(stop):
        number = chance.randrange(50)
        directory = '%s/dir%d/sub/' % (root, number % 3)
        name = 'lock-%d' % number
        action = chance.choice(['status', 'lock', 'lock', 'unlock'])
        try:
            if action == 'status':
                # The flow of the README: what was read is changed and written back.
                data = lock(directory, name)
                if data['lock_file_status'] == 'locked' and chance.random() < 0.5:
                    data.update({'msg': 'read, changed: and written # back', 'lock_action': 'lock'})
                    lock(directory, name, lock_data=data, lock_action='lock')
                    action = 'rewrite'
            elif action == 'lock':
                data = {
                    'msg': 'Locking App1 for canary deployment',
                    'data': {'backend': 'App1', 'status': chance.choice(['MAINT', 'READY'])},
                    'count': chance.randrange(1000),
                    'tags': ['a', 'yes', '1'],
                }
                lock(directory, name, lock_data=data, lock_action='lock',
                     ensure_unlock_state=chance.random() < 0.5)
            else:
                lock(directory, name, lock_action='unlock')
            did[action] += 1
        except (LockFilePresentError, LockFileNotPresentError, LockFileNotPresentForRemoval,
                FileNotFoundError, FileExistsError) as error:
            did[type(error).__name__] += 1
        except (yaml.YAMLError, TypeError, ValueError) as error:
            # Somebody's half written file: the original never wrote any other way.
            did['half written'] += 1
    print(dict(did))


if __name__ == '__main__':
    main(*sys.argv[1:])
